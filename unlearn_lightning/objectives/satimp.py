"""SatImp: gradient ascent weighted by how saturated and how important each token is.

unlearn fit -c configs/objectives/satimp.yaml -c configs/backbones/tiny-llama.yaml --model.backbone.model RUN/model
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from unlearn_lightning.data import Batch
from unlearn_lightning.modules import Unlearning


def satimp_loss(token_log_lik: Tensor, beta1: float, beta2: float) -> Tensor:
    """p^β1 (1 - p)^β2 log p per token, the weight without a gradient; Yang et al. 2025, arXiv:2505.11953.

    Args:
        token_log_lik: (...) log p of response tokens, nats; 0 elsewhere, which stays 0.
        beta1: how fast unlikely tokens are left alone.
        beta2: how fast certain tokens are left alone. The weight is largest at p = β1 / (β1 + β2).

    Returns:
        (...) nats.
    """
    known = token_log_lik.detach()
    # 1 - p without cancellation where p is near 1.
    return (beta1 * known).exp() * (-torch.expm1(known)).clamp(min=0) ** beta2 * token_log_lik


class SatImp(Unlearning):
    """Saturation and importance weighted gradient ascent on the forget set; mean over the response tokens of the whole batch.

    Paper and README of OpenUnlearning weigh forget to retain as 10 to 1 (`retain.weight: 0.1`); its configuration has the reverse.

    Args:
        beta1: exponent of p; 5 in the paper.
        beta2: exponent of 1 - p; 1 in the paper.
    """

    average = "tokens"

    def __init__(self, *args: Any, beta1: float = 5.0, beta2: float = 1.0, **kwargs: Any) -> None:
        # No reference is asked for, so that `cache_reference` is no setting of this objective.
        super().__init__(*args, cache_reference=False, **kwargs)  # type: ignore[misc]
        if not (0 <= beta1 < math.inf and 0 <= beta2 < math.inf):
            raise ValueError(f"SatImp needs beta1 and beta2 of at least 0, got {beta1} and {beta2}.")
        self.beta1, self.beta2 = beta1, beta2

    def forget_loss(self, batch: Batch) -> Tensor:
        """(B,) nats, summed over response tokens."""
        return satimp_loss(self.token_log_likelihood(batch), self.beta1, self.beta2).sum(-1)
