"""The default optimizer, and learning-rate schedules per optimizer step, shaped by transformers, over a known number of steps.

    lr_scheduler: {class_path: WarmupStableDecay, init_args: {warmup: 0.02, decay: 0.02}}

transformers' schedules give the first step a learning rate of 0, which wastes one of 16 unlearning steps. Here they are read one
step later, so that step t of w warm-up steps has (t + 1) / w of the full rate and the last step is not 0 either.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch.optim import SGD, AdamW, Optimizer
from torch.optim.lr_scheduler import LambdaLR
from transformers import get_cosine_schedule_with_warmup, get_wsd_schedule


class PaperAdamW(AdamW):
    """AdamW with the paper's settings (arXiv:2510.16629, appendix D), so that a run without an `optimizer` has a named default.

    Args:
        params: what is trained; given by the trainer.
        lr: learning rate.
        betas: decay of the running averages of gradient and squared gradient.
        weight_decay: decoupled weight decay; none here.
    """

    def __init__(
        self, params: Iterable[Any], lr: float = 1e-5, betas: tuple[float, float] = (0.9, 0.999), weight_decay: float = 0.0
    ) -> None:
        super().__init__(params, lr=lr, betas=betas, weight_decay=weight_decay)


class WarmupStableDecay(LambdaLR):
    """Linear warm-up, constant rate, linear decay (the paper's schedule: 2% / 2%, arXiv:2510.16629, appendix D).

    Args:
        optimizer: whose learning rates are scheduled; given by the trainer.
        total_steps: optimizer steps of the whole run; given by the trainer.
        warmup: share of all steps, at least one step unless 0.
        decay: share of all steps, at least one step unless 0.
    """

    def __init__(self, optimizer: Optimizer, total_steps: int, warmup: float = 0.02, decay: float = 0.02) -> None:
        rising, falling = _steps(warmup, total_steps, "warmup"), _steps(decay, total_steps, "decay")
        stable = total_steps - rising - falling + 1
        if stable < 0:
            raise ValueError(f"lr_scheduler: warmup {warmup} and decay {decay} together exceed the run's {total_steps} steps.")
        curve = _curve(lambda o: get_wsd_schedule(o, rising, falling, num_stable_steps=stable, decay_type="linear"))
        super().__init__(optimizer, lambda step: curve(step + 1))


class Cosine(LambdaLR):
    """Linear warm-up, then half a cosine down to (almost) 0.

    Args:
        optimizer: whose learning rates are scheduled; given by the trainer.
        total_steps: optimizer steps of the whole run; given by the trainer.
        warmup: share of all steps, at least one step unless 0.
    """

    def __init__(self, optimizer: Optimizer, total_steps: int, warmup: float = 0.03) -> None:
        rising = _steps(warmup, total_steps, "warmup")
        curve = _curve(lambda o: get_cosine_schedule_with_warmup(o, rising, total_steps + 1))
        super().__init__(optimizer, lambda step: curve(step + 1))


def _steps(share: float, total_steps: int, name: str) -> int:
    if not 0 <= share <= 1:
        raise ValueError(f"lr_scheduler.{name} is a share of all steps, between 0 and 1; got {share}.")
    return max(1, round(share * total_steps)) if share else 0


def _curve(schedule: Callable[[Optimizer], LambdaLR]) -> Callable[[int], float]:
    """The step -> multiplier function of a transformers schedule."""
    return schedule(SGD([torch.zeros(1)], lr=1.0)).lr_lambdas[0]
