"""A chat template is somebody else's program: it gets seconds, and memory that a conversation can need, and no more.

with limited(memory=True):
    text = tokenizer.apply_chat_template(...)       # TemplateLimit after SECONDS of computing, MemoryError past MEMORY bytes

transformers renders in Jinja's sandbox, which keeps a template from everything but time and memory.
"""

from __future__ import annotations

import resource
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

# The slowest shipped template takes 2 ms for a conversation.
SECONDS = 2.0
# Address space beyond what the process has, in bytes. A rendered conversation has thousands.
MEMORY = 1 << 30


class TemplateLimit(RuntimeError):
    """A template took more time than it gets."""


@contextmanager
def limited(memory: bool) -> Iterator[None]:
    """Context with a limit on the processor time of this process and, if wanted, on its memory.

    The time is limited on the main thread only, as only that one gets signals, and where nobody else counts it. The memory is the whole
    process's, so it is limited where nothing else is going on: while a template is tried for the first time.

    Raises:
        TemplateLimit: the time is over.
        MemoryError: the memory is used up.
    """
    with _seconds(), _memory() if memory else _nothing():
        yield


@contextmanager
def _nothing() -> Iterator[None]:
    yield


@contextmanager
def _seconds() -> Iterator[None]:
    # The timer of processor time: alarms of wall-clock time belong to others, and a busy machine is no fault of the template.
    if threading.current_thread() is not threading.main_thread() or signal.getitimer(signal.ITIMER_VIRTUAL)[0]:
        yield
        return
    before = signal.signal(signal.SIGVTALRM, _over)
    signal.setitimer(signal.ITIMER_VIRTUAL, SECONDS, SECONDS)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        signal.signal(signal.SIGVTALRM, before)


def _over(*_: Any) -> None:
    raise TemplateLimit(f"it computes for more than {SECONDS:g} seconds")


@contextmanager
def _memory() -> Iterator[None]:
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    limit = _address_space() + MEMORY
    if _address_space() == 0 or (soft not in (resource.RLIM_INFINITY, -1) and soft <= limit):
        yield
        return
    with suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_AS, (limit, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))


def _address_space() -> int:
    """What the process has of it, in bytes; 0 where it cannot be seen, as on macOS."""
    try:
        with open("/proc/self/statm", encoding="ascii") as file:
            return int(file.read().split()[0]) * resource.getpagesize()
    except OSError:
        return 0
