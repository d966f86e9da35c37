"""One stage of fine-tuning: next-token loss on the responses.

unlearn fit --model StageFineTuning -c configs/stages/tofu.yaml -c configs/backbones/tiny-llama.yaml
"""

from __future__ import annotations

from torch import Tensor, nn

from unlearn_lightning.data import Batch
from unlearn_lightning.modules.causal_lm import CausalLMModule


class StageFineTuning(CausalLMModule):
    """Minimises the mean negative log-likelihood per response token; continues the backbone's last adapter if there is one."""

    def build(self) -> nn.Module:
        """All weights, or one adapter, trainable."""
        return self.backbone.load_for_fine_tuning()

    def loss(self, batch: Batch) -> Tensor:
        """(B,) -log p(response), nats."""
        return -self.response_log_likelihood(batch)
