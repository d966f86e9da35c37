"""How a run ends in W&B: at once, and called failed there where it failed."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager

# W&B's runs that no command ends: those that were open before a command began, and those that W&B could not end.
_left: list[object] = []


@contextmanager
def command_in_wandb() -> Iterator[None]:
    """A command, which has no run open in W&B afterwards but the one that was open before; that one belongs to the calling program."""
    before = _open_run()
    _left.append(before)
    try:
        yield
    finally:
        end_in_wandb()
        _left.remove(before)


def end_in_wandb(failed: bool = False) -> None:
    """Ends the run that a command has opened in W&B, if there is one; where W&B cannot, a line on stderr says so.

    W&B would end it by itself when the process does, and call it finished, since a command that says an error in one line raises nothing.
    Its last words also come before that line and not after it; and the next command of the same process would log into the same run.
    """
    run = _open_run()
    if run is None or _is_left(run):
        return
    try:
        sys.modules["wandb"].finish(exit_code=int(failed))
    except Exception as error:
        _left.append(run)
        print(f"W&B could not end its run, whose numbers are in metrics.csv all the same: {error}", file=sys.stderr)


def in_a_programs_run() -> bool:
    """Whether W&B has a run open that the program has begun which calls the command."""
    run = _open_run()
    return run is not None and _is_left(run)


def _is_left(run: object) -> bool:
    return any(run is other for other in _left)


def _open_run() -> object:
    # wandb is imported only where a run logs to it, because that takes a second.
    return getattr(sys.modules.get("wandb"), "run", None)
