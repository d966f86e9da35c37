"""NewObjective: gradient ascent that lets go of a response once it is unlikely enough.

unlearn fit -c configs/objectives/npo.yaml -c configs/backbones/tiny-llama.yaml --model new_objective.NewObjective --model.floor 20
"""

from __future__ import annotations

from lightning.pytorch.cli import OptimizerCallable
from torch import Tensor

from unlearn_lightning.data import Batch
from unlearn_lightning.models.backbone import Backbone
from unlearn_lightning.modules import Unlearning
from unlearn_lightning.modules.causal_lm import ScheduleCallable
from unlearn_lightning.schedule import PaperAdamW, WarmupStableDecay


def new_objective_loss(log_lik: Tensor, floor: float) -> Tensor:
    """max(log π, -floor) per response.

    Args: log_lik: (B,) nats, summed over response tokens; floor: nats.   Returns: (B,) nats.
    """
    return log_lik.clamp(min=-floor)


class NewObjective(Unlearning):
    """Minimises the forget set's log-likelihood down to a floor; mean over examples.

    Args:
        backbone: the trained model to unlearn from.
        optimizer: fresh; AdamW without weight decay unless set.
        lr_scheduler: per optimizer step.
        floor: a response with a log-likelihood below -floor is left alone, nats.
    """

    average = "examples"

    def __init__(
        self,
        backbone: Backbone,
        optimizer: OptimizerCallable = PaperAdamW,
        lr_scheduler: ScheduleCallable = WarmupStableDecay,
        floor: float = 200.0,
    ) -> None:
        super().__init__(backbone, optimizer, lr_scheduler)
        if floor <= 0:
            raise ValueError(f"NewObjective needs a floor above 0 nats, got {floor}.")
        self.floor = floor

    def forget_loss(self, batch: Batch) -> Tensor:
        """(B,) nats."""
        # Where the loss compares with the model before unlearning, set needs_reference = True in the class and use
        # self.reference_log_likelihood(batch), (B,) nats as well.
        return new_objective_loss(self.response_log_likelihood(batch), self.floor)
