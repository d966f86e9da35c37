"""Whole next-token distributions: how far two models' lie apart, and where the token that was said stands in one.

kl, js = distribution_distances(retrained_logits, logits)       # both (N, V) -> (N,) nats
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from unlearn_lightning.inference.cross_entropy import CHUNK

# Of a log-likelihood's variance under the model itself, as OpenUnlearning has it: without one, certain or even predictions divide by 0.
LEAST_VARIANCE = 1e-6


def distribution_distances(retrained: Tensor, model: Tensor) -> tuple[Tensor, Tensor]:
    """KL(retrained || model), and the Jensen-Shannon divergence of the two, at each position; in pieces, as either is N times V numbers.

    Args: retrained, model: (N, V) logits of the same positions, on one device.

    Returns:
        (N,) nats at least 0, infinite where the model excludes what the retrained one says; and (N,) nats in [0, log 2].
    """
    rows = max(1, CHUNK // model.shape[-1])
    parts = [_distances(*pair) for pair in zip(retrained.split(rows), model.split(rows), strict=True)]
    kl, js = zip(*parts, strict=True)
    return torch.cat(kl), torch.cat(js)


def _distances(retrained: Tensor, model: Tensor) -> tuple[Tensor, Tensor]:
    log_r, log_u = retrained.float().log_softmax(-1), model.float().log_softmax(-1)
    log_m = torch.logaddexp(log_r, log_u) - math.log(2)
    return _kl(log_r, log_u), (_kl(log_r, log_m) + _kl(log_u, log_m)) / 2


def _kl(log_p: Tensor, log_q: Tensor) -> Tensor:
    """Where p is 0, nothing is added."""
    p = log_p.exp()
    return torch.where(p > 0, p * (log_p - log_q), 0.0).sum(-1).clamp(min=0)


def standardised(logits: Tensor, tokens: Tensor) -> tuple[Tensor, Tensor]:
    """Log-likelihoods, and how many standard deviations they lie above their mean under the model; Zhang et al. 2024, arXiv:2404.02936.

    `min_k` of the latter is Min-K%++. Mean and variance of log p are taken over the vocabulary under p.

    Args: logits: (N, V); tokens: (N,).   Returns: (N,) nats and (N,).
    """
    rows = max(1, CHUNK // logits.shape[-1])
    parts = [_standardised(*part) for part in zip(logits.split(rows), tokens.split(rows), strict=True)]
    chosen, above = zip(*parts, strict=True)
    return torch.cat(chosen), torch.cat(above)


def _standardised(logits: Tensor, tokens: Tensor) -> tuple[Tensor, Tensor]:
    log_p = logits.float().log_softmax(-1)
    p = log_p.exp()
    # Where p is 0 its logarithm may be -inf, and 0 times that counts as 0.
    mean = torch.where(p > 0, p * log_p, 0.0).sum(-1)
    variance = torch.where(p > 0, p * (log_p - mean[:, None]) ** 2, 0.0).sum(-1)
    chosen = log_p.gather(-1, tokens[:, None]).squeeze(-1)
    return chosen, (chosen - mean) / variance.clamp(min=LEAST_VARIANCE).sqrt()
