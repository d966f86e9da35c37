"""Staged fine-tuning and unlearning of language models, measured at every step.

From the shell: `unlearn study configs/studies/demo.yaml`. The README's architecture section names every room.
"""

import logging

# bitsandbytes, which peft imports, complains about an optional CPU kernel at every start.
logging.getLogger("bitsandbytes.backends.cpu.ops").setLevel(logging.ERROR)

__version__ = "0.1.0"
