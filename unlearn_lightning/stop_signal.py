"""SIGUSR1 asks a process to save and end: a cluster's warning before the time limit.

listen()                              # at the start of the process, so that a warning during its slow start is not its end
if was_asked(): ...                   # save, then raise SystemExit(ASKED_TO_STOP)
"""

from __future__ import annotations

import signal
import threading
from typing import Any

# The exit status of a process that was asked to stop (EX_TEMPFAIL), and the seconds that it may take before it is killed.
ASKED_TO_STOP, GRACE = 75, 90

_asked = threading.Event()


def listen() -> None:
    """From now on a SIGUSR1 is remembered; without effect outside the main thread."""
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGUSR1, _remember)


def was_asked() -> bool:
    """Whether the signal came."""
    return _asked.is_set()


def _remember(*_: Any) -> None:
    _asked.set()
    # The system's own action, which also ends a process that is deep in a library's code, or that never comes to its next step.
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.alarm(GRACE)
