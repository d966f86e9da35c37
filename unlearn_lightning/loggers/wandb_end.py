"""How a run ends in W&B: at once, and called failed there where it failed."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager

# The runs that were open before the commands that are being executed began, which are whoever's who called them.
_before: list[object] = []


@contextmanager
def command_in_wandb() -> Iterator[None]:
    """A command, in which `end_in_wandb` ends only what the command has opened; a program's or notebook's own run stays open."""
    _before.append(_open_run())
    try:
        yield
    finally:
        _before.pop()


def end_in_wandb(failed: bool = False) -> None:
    """Ends the run that W&B has open, if it has one that a command opened.

    W&B would end it by itself when the process does, and call it finished, since a command that says an error in one line raises nothing.
    Its last words also come before that line and not after it; and the next command of the same process would log into the same run.
    """
    run = _open_run()
    if run is not None and not any(run is other for other in _before):
        sys.modules["wandb"].finish(exit_code=int(failed))


def _open_run() -> object:
    # wandb is imported only where a run logs to it, because that takes a second.
    return getattr(sys.modules.get("wandb"), "run", None)
