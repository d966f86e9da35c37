"""Negative preference optimisation.

unlearn fit -c configs/objectives/npo.yaml -c configs/backbones/tiny-llama.yaml --model.backbone.model RUN/model --model.beta 0.1
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from unlearn_lightning.data import Batch
from unlearn_lightning.modules import GRADIENT_WEIGHT, Unlearning


def npo_loss(log_lik: Tensor, ref_log_lik: Tensor, beta: float) -> Tensor:
    """-(2/β) log σ(-β (log π - log π_ref)) per response; Zhang et al. 2024, arXiv:2404.05868, eq. 3.

    Args: log_lik, ref_log_lik: (B,) nats, summed over response tokens.   Returns: (B,) nats.
    """
    return -(2 / beta) * functional.logsigmoid(-beta * (log_lik - ref_log_lik))


def npo_weight(log_lik: Tensor, ref_log_lik: Tensor, beta: float) -> Tensor:
    """2 σ(β (log π - log π_ref)): the loss's slope in log π, so 1 at the reference, where gradient ascent's is 1 everywhere.

    Args: log_lik, ref_log_lik: (B,) nats, summed over response tokens.   Returns: (B,) from 0 (forgotten) to 2.
    """
    return 2 * torch.sigmoid(beta * (log_lik - ref_log_lik))


class NPO(Unlearning):
    """Negative preference optimisation of the forget set against the frozen starting model; mean over examples.

    It logs `train/gradient_weight`, by which each step's gradients are multiplied: once it is near 0, further steps change nothing.

    Args:
        beta: inverse temperature; towards 0 the loss becomes gradient ascent's. The paper uses 0.5.
    """

    average = "examples"
    needs_reference = True

    def __init__(self, *args: Any, beta: float = 0.5, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if not 0 < beta < math.inf:
            raise ValueError(f"NPO needs beta above 0, got {beta}.")
        self.beta = beta

    def forget_loss(self, batch: Batch) -> Tensor:
        """(B,) nats; 2 log 2 / beta at the start."""
        log_lik, reference = self.response_log_likelihood(batch), self.reference_log_likelihood(batch)
        self.log_step_value(GRADIENT_WEIGHT, npo_weight(log_lik, reference, self.beta), batch)
        return npo_loss(log_lik, reference, self.beta)
