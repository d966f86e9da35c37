"""How far two models' next-token distributions lie apart, over the whole vocabulary.

kl, js = distribution_distances(retrained_logits, logits)       # both (N, V) -> (N,) nats
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from unlearn_lightning.inference.cross_entropy import CHUNK


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
