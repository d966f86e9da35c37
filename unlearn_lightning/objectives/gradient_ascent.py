"""Gradient ascent: fine-tuning's loss with the sign turned. With a retain term it is GradDiff (configs/objectives/grad_diff.yaml).

unlearn fit -c configs/objectives/gradient_ascent.yaml -c configs/backbones/tiny-llama.yaml --model.backbone.model RUN/model
"""

from __future__ import annotations

from torch import Tensor

from unlearn_lightning.data import Batch
from unlearn_lightning.modules import Unlearning


class GradientAscent(Unlearning):
    """Minimises the mean log-likelihood per response token of the forget set (over the whole batch, as the paper's code does)."""

    average = "tokens"

    def forget_loss(self, batch: Batch) -> Tensor:
        """(B,) log p(response), nats."""
        return self.response_log_likelihood(batch)
