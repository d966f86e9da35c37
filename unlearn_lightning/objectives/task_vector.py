"""Task-vector negation: the model is fine-tuned on the forget set, and what that changed is subtracted from where it began.

unlearn fit -c configs/objectives/task_vector.yaml -c configs/backbones/tiny-llama.yaml --model.backbone.model RUN/model
"""

from __future__ import annotations

import unlearn_lightning.inference.hub_kernels  # isort: skip  # noqa: F401

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from peft import PeftModel
from torch import Tensor, nn

from unlearn_lightning.data import Batch
from unlearn_lightning.models.sharding import local
from unlearn_lightning.modules import Unlearning


def negated(start: Tensor, trained: Tensor, scale: float) -> Tensor:
    """The weight start - scale · (trained - start), in float32; Ilharco et al. 2023, arXiv:2212.04089, sec. 3.

    Args: start, trained: a weight before and after fine-tuning.   scale: the paper's λ.   Returns: the weight of the negated model.
    """
    return start.float() - scale * (trained.float() - start.float())


class TaskVector(Unlearning):
    """Negates the task vector of the forget set: ends with the start weights minus `scale` times what training on it changed. Local.

    It trains as fine-tuning does: mean over the response tokens of the whole batch.

    What is measured at any step, and what the run saves, is the negated model of that step: the training loss falls while the forget set
    is forgotten. Checkpoints hold the trained weights, from which a stopped run goes on.

    With an adapter the result is the adapter at minus `scale`, written into its second matrix, and its first one as it was trained. Full
    fine-tuning keeps the start weights in the CPU's memory, and the trained ones too while it measures or saves: no second model computes
    anything. A retain term is refused, because the negation would turn it round as well.

    Args:
        scale: by how much the change is negated; 1 to 16 in MUSE, whose authors take the smallest that forgets as the retrained model does.
    """

    average = "tokens"

    def __init__(self, *args: Any, scale: float = 1.0, **kwargs: Any) -> None:
        if kwargs.get("retain") is not None:
            raise ValueError(
                "TaskVector subtracts all that its training changed, so that a retain term would be unlearned too: leave `retain` out."
            )
        # No reference is asked for, so that `cache_reference` is no setting of this objective.
        super().__init__(*args, cache_reference=False, **kwargs)  # type: ignore[misc]
        if not 0 < scale < math.inf:
            raise ValueError(f"TaskVector needs scale above 0, got {scale}.")
        self.scale = scale
        self._start: dict[str, Tensor] = {}

    def configure_model(self) -> None:
        """Also keeps the weights that are negated as they are at the start; a checkpoint is read later."""
        is_new = self.net is None
        super().configure_model()
        if is_new:
            self._start = {name: _copy(parameter) for name, parameter in self._negated_weights()}

    def _negated_weights(self) -> list[tuple[str, nn.Parameter]]:
        """All trained weights; of an adapter the second matrices alone, because negating both would leave their product as it is."""
        trained = [(name, parameter) for name, parameter in self.net.named_parameters() if parameter.requires_grad]
        if not isinstance(self.net, PeftModel):
            return trained
        return [(name, parameter) for name, parameter in trained if "lora_B" in name or "lora_embedding_B" in name]

    def forget_loss(self, batch: Batch) -> Tensor:
        """(B,) -log p(response), nats."""
        return -self.response_log_likelihood(batch)

    @contextmanager
    def outcome(self) -> Iterator[None]:
        """Inside of this block the network is the negated model; the trained weights come back to the last bit."""
        weights = self._negated_weights()
        trained = {name: _copy(parameter) for name, parameter in weights}
        try:
            for name, parameter in weights:
                # A weight that did not move stays as it is, also where a finished run's model is measured.
                _fill(parameter, negated(self._start[name], trained[name], self.scale))
            yield
        finally:
            for name, parameter in weights:
                _fill(parameter, trained[name])


def _copy(parameter: Tensor) -> Tensor:
    return local(parameter.detach()).to("cpu", copy=True)


@torch.no_grad()
def _fill(parameter: Tensor, value: Tensor) -> None:
    local(parameter.detach()).copy_(value)
