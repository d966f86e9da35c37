"""Gradient ascent that stays close to the starting model on the forget set itself: a local objective with a regulariser.

unlearn fit -c configs/objectives/kl_ascent.yaml -c configs/backbones/llama3.2-1b.yaml --model.backbone.adapter RUN/adapter
"""

from __future__ import annotations

import math
from typing import Any

from torch import Tensor

from unlearn_lightning.data import Batch
from unlearn_lightning.modules import Unlearning


class KLAscent(Unlearning):
    """log p + weight · KL(starting model ‖ model) over the forget set's response tokens; mean over those of the whole batch.

    The forget-set form of KL-regularised ascent (`grad_ascent_forgetKL` in the code of Zhang et al. 2024, arXiv:2404.05868). The form with
    the divergence on the retain set is GradientAscent with `retain.loss: kl`. The divergence counts response tokens only; the code of
    TOFU, NPO and OpenUnlearning divides by prompt and padding positions too, which dilutes it.

    Args:
        kl_weight: of the divergence, the likelihood having 1.
    """

    average = "tokens"
    needs_reference_logits = True

    def __init__(self, *args: Any, kl_weight: float = 1.0, **kwargs: Any) -> None:
        super().__init__(*args, cache_reference=False, **kwargs)  # type: ignore[misc]
        if not 0 < kl_weight < math.inf:
            raise ValueError(f"KLAscent needs kl_weight above 0, got {kl_weight}; without the divergence it is GradientAscent.")
        self.kl_weight = kl_weight

    def forget_loss(self, batch: Batch) -> Tensor:
        """(B,) nats, summed over response tokens; log p at the start."""
        return self.response_log_likelihood(batch) + self.kl_weight * self.divergence_from_start(batch)
