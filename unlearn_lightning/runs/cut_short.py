"""Runs that a flag ends before their plan: such a run is never `finished`, so that nothing takes its result.

check_whole(config, "seed1/inst")       # refuses trainer.fast_dev_run and trainer.barebones in a study
cut_short_by(trainer)                   # at a run's end: "trainer.max_time"; None for a whole run
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lightning.pytorch.callbacks import Timer


def check_recorded(config: Mapping[str, Any]) -> None:
    """Refuses what a run cannot be recorded with.

    Raises:
        ValueError: trainer.barebones is set.
    """
    if config["trainer"]["barebones"]:
        raise ValueError("trainer.barebones leaves out all that records a run, its result included: leave it out.")


def check_whole(config: Mapping[str, Any], name: str) -> None:
    """Refuses a study's run that could never be finished.

    Raises:
        ValueError: trainer.fast_dev_run or trainer.barebones is set.
    """
    check_recorded(config)
    if config["trainer"]["fast_dev_run"]:
        raise ValueError(
            f"{name}: trainer.fast_dev_run cuts every run short, and no later run may start from such a one. To try a study set "
            "trainer.max_steps to 1 instead, and another --store."
        )


def cut_short_by(trainer: Any) -> str | None:
    """The setting that ended a run before its last step; None where the run did all that its key says.

    A callback that stops training early, such as EarlyStopping, is part of the key and so of the plan. How much a machine does in a given
    time is not.
    """
    if trainer.fast_dev_run:
        return "trainer.fast_dev_run"
    left = [callback.time_remaining() for callback in trainer.callbacks if isinstance(callback, Timer)]
    is_late = any(seconds is not None and seconds <= 0 for seconds in left)
    return "trainer.max_time" if is_late and trainer.global_step < trainer.datamodule.total_steps() else None
