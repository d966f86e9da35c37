"""How a process ends early: SIGTERM, Ctrl-C or SIGUSR1 asks for it once, and it ends where nothing is lost.

    return stoppable(lambda: work(arguments), "unlearn fit -c run.yaml")    # the exit status; a line says how to go on after a stop
    with held(): ...                                                        # in here it ends where `check()` stands, elsewhere at once
    check()

SIGUSR1 is a cluster's warning before the time limit, and never ends a process at once. A second signal ends it without further ado;
what comes within a second of the first is the same request, because `timeout` and service managers signal a process and its group.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

# The exit status of a process that a cluster asked to stop (EX_TEMPFAIL), and the seconds that it may take before it is killed.
ASKED_TO_STOP, GRACE = 75, 90
SIGNALS = {signal.SIGTERM: "SIGTERM", signal.SIGINT: "Ctrl-C", signal.SIGUSR1: "SIGUSR1"}
SAME_REQUEST = 1.0
"""Seconds in which further signals are part of the first."""


class Stopped(SystemExit):
    """Raised where a process that was asked to end can end without loss; its code is the process's exit status."""


@dataclass
class _State:
    """What has come so far. A forked child (a data loader's worker) has a copy, and another process id."""

    again_ends: bool = True
    asked: int | None = None
    since: float = 0.0
    held: int = 0
    process: int = field(default_factory=os.getpid)


_state = _State()
_listening = False


def listen(again_ends: bool = True) -> Callable[[], None]:
    """From now on signals are requests to stop; gives the function that ends this. Without effect outside the main thread.

    A signal that is ignored stays so, as Ctrl-C is for what a shell started in the background.

    Args:
        again_ends: whether a second signal ends the process at once.
    """
    global _state, _listening
    if _listening or threading.current_thread() is not threading.main_thread():
        return lambda: None
    _state, _listening = _State(again_ends), True
    # `signal` returns None for a handler that was not installed from Python.
    before = {number: handler for number in SIGNALS if (handler := signal.getsignal(number)) not in (signal.SIG_IGN, None)}
    for number in before:
        signal.signal(number, _ask)

    def restore() -> None:
        global _listening
        _listening = False
        for number, handler in before.items():
            signal.signal(number, handler)

    return restore


def was_asked() -> bool:
    """Whether a signal came."""
    return _state.asked is not None


def check() -> None:
    """Ends the process here if a signal has asked for it.

    Raises:
        Stopped: it was asked to.
    """
    if _state.asked is not None:
        raise Stopped(_status(_state.asked))


def between_chunks() -> None:
    """A place in the middle of a measurement where a training process can end; of several processes none ends alone.

    Before the first step nothing is held, so that SIGTERM and Ctrl-C have ended the process already. SIGUSR1 leaves it time for one step.

    Raises:
        Stopped: it was asked to.
    """
    distributed = sys.modules.get("torch.distributed")
    alone = distributed is None or not (distributed.is_available() and distributed.is_initialized() and distributed.get_world_size() > 1)
    if _state.held and alone:
        check()


@contextmanager
def held() -> Iterator[None]:
    """Signals are remembered, and end nothing before `check()`."""
    _state.held += 1
    try:
        yield
    finally:
        _state.held -= 1


def stoppable(work: Callable[[], int], command: str) -> int:
    """The exit status of the work: its own, or 143, 130 or ASKED_TO_STOP after a line that says how to go on.

    Args:
        work: gives an exit status. What it raises after a signal counts as the stop, because libraries fail when their helpers are gone.
        command: what goes on with the work, for the line.
    """
    further = int(os.environ.get("LOCAL_RANK", 0)) > 0
    if further:
        end_with_parent()
    restore = listen()
    stopped = False
    try:
        status = work()
    except BaseException as error:
        stopped = was_asked() or isinstance(error, Stopped)
        if not stopped:
            raise
        status = 1
    finally:
        _state.held += 1
        restore()
    asked = _state.asked
    if not status or not (stopped or asked):
        return status
    if further:
        # The status of a run is its first process's, which Lightning would kill if another ended with one of its own.
        return 0
    if int(os.environ.get("RANK", os.environ.get("SLURM_PROCID", 0))) == 0:
        by = SIGNALS[signal.Signals(asked)] if asked else "a signal to another of its processes"
        with suppress(OSError):
            print(f"unlearn: stopped by {by}. To go on: {command}", file=sys.stderr)
    return _status(asked) if asked else ASKED_TO_STOP


def end_with_parent(parent: int | None = None) -> None:
    """From now on this process is killed when the one that started it is gone, however that ended: it would work for nobody.

    Args:
        parent: its process id; null for the parent of now.
    """
    parent = os.getppid() if parent is None else parent

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(0.5)
        os.kill(os.getpid(), signal.SIGKILL)

    threading.Thread(target=watch, name="end_with_parent", daemon=True).start()


def _status(number: int) -> int:
    return ASKED_TO_STOP if number == signal.SIGUSR1 else 128 + number


def _ask(number: int, *_: Any) -> None:
    if os.getpid() != _state.process:
        # Service managers signal every process: without its data loader a run would fail before the end of its step.
        _end_in_time()
    elif _state.asked is None:
        _state.asked, _state.since = number, time.monotonic()
        if number == signal.SIGUSR1:
            _end_in_time()
        elif not _state.held:
            check()
    elif _state.again_ends and time.monotonic() - _state.since >= SAME_REQUEST:
        if sys.stdout.isatty():
            # A progress bar has hidden the cursor.
            os.write(1, b"\x1b[?25h\n")
        signal.signal(number, signal.SIG_DFL)
        os.kill(os.getpid(), number)


def _end_in_time() -> None:
    # The system's own action, which also ends a process that is deep in a library's code, or that never comes to its next step.
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.alarm(GRACE)
