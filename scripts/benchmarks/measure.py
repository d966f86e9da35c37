"""How times and memory are measured: two ways of the same work, turn by turn, in one process.

    ours, theirs = timed({"ours": fast, "theirs": slow}, repeats=3).values()       # median seconds
    peak_bytes(step)                                                               # most tensor memory that was alive at once

On a CPU seconds are the process's CPU time: with one thread it is the time on a quiet machine, and a busy one does not spoil it. On a
GPU they are wall-clock seconds between synchronisations.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile

Work = Callable[[], Any]


@dataclass(frozen=True)
class Result:
    """One line of the table.

    Attributes:
        what, against: the two ways.
        case: which size or data.
        quantity: what is compared, and its unit.
        ours, theirs: its two values; `theirs` is null where there is nothing beside it.
        ratio: how much better ours is (or the measured value itself, where the target is a bound on it).
        target: the ratio asked for; null where there is none.
        at_most: the target is an upper bound.
        note: what a reader should know.
    """

    what: str
    against: str
    case: str
    quantity: str
    ours: float
    theirs: float | None
    ratio: float
    target: float | None = None
    at_most: bool = False
    note: str = ""
    details: dict[str, Any] = field(default_factory=dict)

    @property
    def met(self) -> bool | None:
        """Whether the target was reached; None without one."""
        if self.target is None:
            return None
        return self.ratio <= self.target if self.at_most else self.ratio >= self.target


def seconds() -> float:
    """Reads the clock after the device has done its work."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
        return time.perf_counter()
    return time.process_time()


def timed(ways: Mapping[str, Work], repeats: int = 3, warm_up: bool = True) -> dict[str, float]:
    """Median seconds of each way; the ways take turns, after one turn that does not count (unless the work is long by itself)."""
    found: dict[str, list[float]] = {name: [] for name in ways}
    for turn in range(repeats + warm_up):
        for name, work in ways.items():
            start = seconds()
            work()
            if turn >= warm_up:
                found[name].append(seconds() - start)
    return {name: statistics.median(values) for name, values in found.items()}


def peak_bytes(work: Work) -> int:
    """Most bytes of tensors that were alive at once during the work, beyond those alive before."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
        before = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        work()
        return torch.cuda.max_memory_allocated() - before
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        work()
    alive = most = 0
    kineto: Any = profiler.profiler
    for event in sorted(kineto.kineto_results.events(), key=lambda e: e.start_ns()):
        if event.name() == "[memory]":
            alive += event.nbytes()
            most = max(most, alive)
    return most


def compared(
    what: str, against: str, case: str, ours: float, theirs: float, target: float | None, quantity: str = "s", **more: Any
) -> Result:
    """Makes a line of the table whose ratio is their time over ours."""
    return Result(what, against, case, quantity, ours, theirs, theirs / ours, target, **more)
