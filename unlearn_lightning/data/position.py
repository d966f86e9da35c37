"""Where in its data an interrupted run goes on, when it goes on with another number of devices or another micro-batch size.

    fit_progress(checkpoint["loops"]["fit_loop"]["epoch_loop.batch_progress"], saved=Pace(2, 5), now=Pace(4, 10))

Lightning counts micro-batches of one device. A checkpoint is written between optimizer steps, and the steps of an epoch are the same
for any number of devices, so the steps that are done tell how many micro-batches that would have been.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Pace:
    """How one device goes through an epoch: micro-batches per optimizer step, and per epoch (the last step may have fewer)."""

    accumulation: int
    micro_batches: int


def fit_progress(progress: dict[str, Any], saved: Pace, now: Pace) -> None:
    """Rewrites Lightning's counts of micro-batches, in place, from the pace of the interrupted run to this one's.

    Raises:
        ValueError: the checkpoint was written inside an optimizer step, whose gradients are lost.
    """
    total, current = progress["total"], progress["current"]
    inside = current["ready"]
    if inside % saved.accumulation and inside != saved.micro_batches:
        raise ValueError(
            f"The checkpoint was written after {inside} micro-batches, in the middle of an optimizer step of {saved.accumulation}: its "
            "gradients are lost. Go on from another checkpoint, such as RUN/checkpoints/last.ckpt."
        )
    # A whole epoch stays a whole epoch, also where its last step is short.
    there = now.micro_batches if inside == saved.micro_batches else inside // saved.accumulation * now.accumulation
    before = (total["ready"] - inside) // saved.micro_batches * now.micro_batches
    for counts, shift in ((current, there - inside), (total, before + there - total["ready"])):
        for name in counts:
            counts[name] += shift
