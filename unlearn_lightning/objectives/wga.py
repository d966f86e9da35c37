"""Weighted gradient ascent: gradient ascent that stops at tokens which are unlikely already.

unlearn fit -c configs/objectives/wga.yaml -c configs/backbones/tiny-llama.yaml --model.backbone.model RUN/model
"""

from __future__ import annotations

import math
from typing import Any

from torch import Tensor

from unlearn_lightning.data import Batch
from unlearn_lightning.modules import Unlearning


def wga_loss(token_log_lik: Tensor, beta: float) -> Tensor:
    """p^β log p per token, the weight p^β without a gradient; Wang et al. 2025, arXiv:2502.19301 (WGA).

    Args:
        token_log_lik: (...) log p of response tokens, nats; 0 elsewhere, which stays 0.
        beta: 0 is gradient ascent; the larger, the sooner a token that becomes unlikely is left alone.

    Returns:
        (...) nats.
    """
    return (beta * token_log_lik.detach()).exp() * token_log_lik


class WGA(Unlearning):
    """Weighted gradient ascent on the forget set; mean over the response tokens of the whole batch.

    Args:
        beta: exponent of the weight; 1 in OpenUnlearning, 5 in the code that came with the paper.
    """

    average = "tokens"

    def __init__(self, *args: Any, beta: float = 1.0, **kwargs: Any) -> None:
        # No reference is asked for, so that `cache_reference` is no setting of this objective.
        super().__init__(*args, cache_reference=False, **kwargs)  # type: ignore[misc]
        if not 0 <= beta < math.inf:
            raise ValueError(f"WGA needs beta of at least 0, got {beta}.")
        self.beta = beta

    def forget_loss(self, batch: Batch) -> Tensor:
        """(B,) nats, summed over response tokens."""
        return wga_loss(self.token_log_likelihood(batch), self.beta).sum(-1)
