"""NewObjective: gradient ascent that lets go of a response once it is unlikely enough.

unlearn fit -c configs/objectives/npo.yaml -c configs/backbones/tiny-llama.yaml --model new_objective.NewObjective --model.floor 20
"""

from __future__ import annotations

from typing import Any

from torch import Tensor

from unlearn_lightning.data import Batch
from unlearn_lightning.modules import Unlearning


def new_objective_loss(log_lik: Tensor, floor: float) -> Tensor:
    """max(log π, -floor) per response.

    Args: log_lik: (B,) nats, summed over response tokens; floor: nats.   Returns: (B,) nats.
    """
    return log_lik.clamp(min=-floor)


class NewObjective(Unlearning):
    """Minimises the forget set's log-likelihood down to a floor; mean over examples.

    Args:
        floor: a response with a log-likelihood below -floor is left alone, nats.
    """

    average = "examples"

    def __init__(self, *args: Any, floor: float = 200.0, **kwargs: Any) -> None:
        # The settings that all objectives share: backbone, optimizer, lr_scheduler, cache_reference, retain.
        super().__init__(*args, **kwargs)
        if floor <= 0:
            raise ValueError(f"NewObjective needs a floor above 0 nats, got {floor}.")
        self.floor = floor

    def forget_loss(self, batch: Batch) -> Tensor:
        """(B,) nats."""
        # Where the loss compares with the model before unlearning, set needs_reference = True in the class and use
        # self.reference_log_likelihood(batch), (B,) nats as well.
        return new_objective_loss(self.response_log_likelihood(batch), self.floor)
