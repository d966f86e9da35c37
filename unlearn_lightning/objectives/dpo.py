"""Direct preference optimisation of a second response over the forgotten one: IdkDPO, or AltPO, by what the second response says.

unlearn fit -c configs/objectives/idk_dpo.yaml -c configs/backbones/tiny-llama.yaml --model.backbone.model RUN/model \
    --data.source forget.jsonl --data.alternative_field idk
"""

from __future__ import annotations

import math
from typing import Any

from torch import Tensor
from torch.nn import functional

from unlearn_lightning.data import Batch
from unlearn_lightning.modules import Unlearning


def dpo_loss(preferred_gain: Tensor, forgotten_gain: Tensor, beta: float) -> Tensor:
    """-(2/β) log σ(β (Δ preferred - Δ forgotten)), Δ = log π - log π_ref of a whole response; Maini et al. 2024, arXiv:2401.06121.

    DPO itself (Rafailov et al. 2023, arXiv:2305.18290, eq. 7) has no factor 2/β; the code of TOFU and that of OpenUnlearning have it.

    Args:
        preferred_gain: (B,) nats, of the response that is to take the other's place.
        forgotten_gain: (B,) nats, of the response to be forgotten.
        beta: inverse temperature.

    Returns:
        (B,) nats.
    """
    return -(2 / beta) * functional.logsigmoid(beta * (preferred_gain - forgotten_gain))


class DPO(Unlearning):
    """Prefers a second response to each prompt (`data.alternative_field`) to the one to be forgotten; mean over examples.

    With a second response such as "I don't know" it is IdkDPO (Maini et al. 2024), with other plausible answers, which the starting
    model itself wrote, AltPO (Mekala et al. 2024, arXiv:2409.13474). The second response is read once from the data and stays the
    same in all epochs; OpenUnlearning draws another at every access, from the global random numbers.

    Args:
        beta: inverse temperature; 0.1 in TOFU, OpenUnlearning and AltPO.
    """

    average = "examples"
    needs_reference = True
    needs_alternative = True

    def __init__(self, *args: Any, beta: float = 0.1, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if not 0 < beta < math.inf:
            raise ValueError(f"DPO needs beta above 0, got {beta}.")
        self.beta = beta

    def forget_loss(self, batch: Batch) -> Tensor:
        """(B,) nats; 2 log 2 / beta at the start."""
        assert batch.alternative is not None
        preferred, forgotten = (
            self.response_log_likelihood(part) - self.reference_log_likelihood(part) for part in (batch.alternative, batch)
        )
        return dpo_loss(preferred, forgotten, self.beta)
