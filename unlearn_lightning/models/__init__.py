"""Networks and their tokenizers: base models, adapters, quantisation, shards."""

from unlearn_lightning.models.hub_kernels import import_bitsandbytes

import_bitsandbytes()
