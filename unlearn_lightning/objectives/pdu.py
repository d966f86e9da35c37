"""Primal-dual unlearning: flat predictions on the forget set, as far as the retain loss stays below a bound.

unlearn fit -c configs/objectives/pdu.yaml -c configs/backbones/tiny-llama.yaml --model.backbone.model RUN/model
"""

from __future__ import annotations

import math
from typing import Any

from torch import Tensor

from unlearn_lightning.data import Batch
from unlearn_lightning.inference.likelihood import response_logits
from unlearn_lightning.modules import Unlearning

MULTIPLIER = "train/multiplier"


def logit_margin_flattening(logits: Tensor) -> Tensor:
    """(largest logit - mean logit)², which is 0 where all tokens are equally likely; Entesari et al. 2025, arXiv:2506.05314.

    Args: logits: (..., V).   Returns: (...) squared logits.
    """
    logits = logits.float()
    return (logits.amax(-1) - logits.mean(-1)).square()


def next_multiplier(multiplier: float, retain_loss: float, bound: float, step: float) -> float:
    """max(0, λ + s (retain loss - ε)): dual ascent on the constraint that the retain loss is at most ε.

    Args: multiplier: λ.   retain_loss: of the whole batch, nats per token.   bound: ε.   step: s.
    """
    return max(0.0, multiplier + step * (retain_loss - bound))


class PDU(Unlearning):
    """Primal-dual unlearning: minimises F + λ (R - ε), where λ grows as long as the retain loss R is above ε, and falls below it.

    F is the flattening of the forget set's predictions, mean over the response tokens of the whole batch. Not local. `train/loss` leaves
    out -λ ε, which has no gradient.

    λ changes once per optimizer step, by the retain loss of the whole batch on all devices, and is kept in checkpoints; `train/multiplier`
    logs it. OpenUnlearning changes it per micro-batch and device, each with its own. Its mask is not shifted either: it misses the logits
    that predict the first response token and counts a position behind the last. Here λ takes the place of `retain.weight`, which stays 1.
    With TOFU the authors take λ = 100 at the start, s = 5, ε = 0.3 and 5 of 10 to 30 epochs of warm-up; with MUSE 50, 1, 0.1 to 1.5 and 3
    of 10.

    Args:
        epsilon: ε, the bound of the retain loss in nats per token, such as a little more than the starting model has; the paper takes
            (1 + a) times that. There is no usual value.
        multiplier: λ at the start; 1 in OpenUnlearning.
        dual_step: s; 0 leaves λ as it is.
        warmup_epochs: epochs at the start in which λ stays as it is.
    """

    average = "tokens"

    def __init__(
        self, *args: Any, epsilon: float, multiplier: float = 1.0, dual_step: float = 1.0, warmup_epochs: float = 0.0, **kwargs: Any
    ) -> None:
        # No reference is asked for, so that `cache_reference` is no setting of this objective.
        super().__init__(*args, cache_reference=False, **kwargs)  # type: ignore[misc]
        if self.retain is None:
            raise ValueError("PDU keeps a retain loss below a bound: name the data that is retained, in model.retain.data.")
        if self.retain.weight != 1:
            raise ValueError(f"PDU's multiplier is the weight of its retain loss: leave retain.weight at 1, got {self.retain.weight}.")
        settings = {"epsilon": epsilon, "multiplier": multiplier, "dual_step": dual_step, "warmup_epochs": warmup_epochs}
        for name, value in settings.items():
            if not 0 <= value < math.inf:
                raise ValueError(f"PDU needs {name} of at least 0, got {value}.")
        self.epsilon, self.multiplier, self.dual_step, self.warmup_epochs = epsilon, multiplier, dual_step, warmup_epochs

    def forget_loss(self, batch: Batch) -> Tensor:
        """(B,) squared logits, summed over response tokens."""
        logits = response_logits(self.net, batch.input_ids, batch.attention_mask, batch.response_mask)
        return self.per_response(logit_margin_flattening(logits), batch)

    def weight_of_retain(self) -> float:
        """λ."""
        return self.multiplier

    def on_before_optimizer_step(self, optimizer: Any) -> None:
        """Also logs λ as it was in this step, and changes it for the next one."""
        super().on_before_optimizer_step(optimizer)
        self._step_log[MULTIPLIER] = self.multiplier
        data: Any = self.trainer.datamodule  # type: ignore[attr-defined]
        per_epoch = math.ceil(data.micro_batches_per_epoch() / data.plan("train").accumulation)
        if self.trainer.global_step >= self.warmup_epochs * per_epoch:
            self.multiplier = next_multiplier(self.multiplier, self._step_log["train/retain_loss"], self.epsilon, self.dual_step)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Adds λ."""
        super().on_save_checkpoint(checkpoint)
        checkpoint["multiplier"] = self.multiplier

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Restores λ."""
        super().on_load_checkpoint(checkpoint)
        self.multiplier = checkpoint["multiplier"]
