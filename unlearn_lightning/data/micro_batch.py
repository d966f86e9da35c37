"""How many examples each device takes at once where no setting says so: its whole share of a batch, or as many as fit its memory.

what_fits(trainer, batch_size=32, encoded=examples)         # None for the whole share
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from lightning.pytorch.utilities.rank_zero import rank_zero_info

from unlearn_lightning.data.examples import Encoded, longest
from unlearn_lightning.models.step_size import StepSize, largest_share, memory_at_hand, processes_here

# Bytes, where a device does not say how many it has.
UNKNOWN = 2**62


def what_fits(trainer: Any, batch_size: int, encoded: Sequence[Encoded]) -> int | None:
    """Examples that each device can take at once, the same on all of them; None where that is its whole share, or is not known."""
    module, strategy, share = trainer.lightning_module, trainer.strategy, batch_size // trainer.world_size
    size = StepSize.of(module.backbone)
    if size is None or share < 2:
        return None
    sequences: float = module.sequences_per_example(batch_size)
    each = size.of_example(*longest(encoded)) * sequences
    known = memory_at_hand(strategy.root_device, processes_here())
    # The device with the least memory decides for all.
    least = torch.tensor(UNKNOWN if known is None else known, dtype=torch.int64, device=strategy.root_device)
    at_hand = int(strategy.reduce(least, reduce_op="min"))
    agreed = largest_share(share, lambda examples: round(size.fixed + examples * each), None if at_hand == UNKNOWN else at_hand)
    if agreed == share:
        return None
    rank_zero_info(
        f"micro_batch_size: {agreed} of {share} examples at once on each device, about {(size.fixed + agreed * each) / 1e9:.1f} GB of "
        f"the {at_hand / 1e9:.1f} GB that are free; the step is the same. data.micro_batch_size sets another number."
    )
    return agreed
