"""SimNPO: NPO without a reference, in the paper's form and in the length-normalised one.

unlearn fit -c configs/objectives/simnpo.yaml -c configs/backbones/tiny-llama.yaml --model.backbone.model RUN/model
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from unlearn_lightning.data import Batch
from unlearn_lightning.inference.likelihood import mean_token
from unlearn_lightning.modules import GRADIENT_WEIGHT, Unlearning


def simnpo_loss(log_lik: Tensor, beta: float, gamma: float = 0.0) -> Tensor:
    """-(2/β) log σ(-β log π - γ) per response; Fan et al. 2024, arXiv:2410.07163, eq. 4.

    Args:
        log_lik: (B,) nats; summed over response tokens (Yu et al. 2025, with γ = 0), or their mean (Fan et al.).
        beta: inverse temperature.
        gamma: margin, in nats times beta.

    Returns:
        (B,) nats.
    """
    return -(2 / beta) * functional.logsigmoid(-beta * log_lik - gamma)


def simnpo_weight(log_lik: Tensor, beta: float, gamma: float = 0.0) -> Tensor:
    """2 σ(β log π + γ): the loss's slope in the log-likelihood that it is given.

    Args: as `simnpo_loss`.   Returns: (B,) from 0 (forgotten) to 2; with γ = 0 it is 1 for a response that is certain.
    """
    return 2 * torch.sigmoid(beta * log_lik + gamma)


class SimNPO(Unlearning):
    """Reference-free negative preference optimisation of the forget set; mean over examples.

    It logs `train/gradient_weight`, by which each step's gradients are multiplied: once it is near 0, further steps change nothing.

    Args:
        length_normalized: divide each log-likelihood by its response's tokens (Fan et al. 2024). The paper's own form does not, and
            has almost no gradient left once a response's negative log-likelihood passes about 20 nats.
        beta: inverse temperature. The paper uses 1, un-normalised.
        gamma: margin of the length-normalised form.
    """

    average = "examples"

    def __init__(self, *args: Any, length_normalized: bool = False, beta: float = 1.0, gamma: float = 0.0, **kwargs: Any) -> None:
        # No reference is asked for, so that `cache_reference` is no setting of this objective.
        super().__init__(*args, cache_reference=False, **kwargs)  # type: ignore[misc]
        if not 0 < beta < math.inf:
            raise ValueError(f"SimNPO needs beta above 0, got {beta}.")
        if gamma and not length_normalized:
            raise ValueError("SimNPO's gamma belongs to the length-normalised form: set length_normalized to true.")
        self.length_normalized, self.beta, self.gamma = length_normalized, beta, gamma

    def forget_loss(self, batch: Batch) -> Tensor:
        """(B,) nats."""
        token_log_lik = self.token_log_likelihood(batch)
        log_lik = mean_token(token_log_lik, batch.response_mask) if self.length_normalized else token_log_lik.sum(-1)
        self.log_step_value(GRADIENT_WEIGHT, simnpo_weight(log_lik, self.beta, self.gamma), batch)
        return simnpo_loss(log_lik, self.beta, self.gamma)
