"""One writer per run folder, also when several studies share a store. The operating system frees a killed process's lock."""

from __future__ import annotations

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def locked(folder: Path) -> Iterator[int]:
    """Waits until no other process works on the folder, and keeps it until the end of the block.

    The lock is a file beside the folder, because a run folder may not exist yet. Gives its descriptor: a process that inherits it
    keeps the lock until both have ended.
    """
    path = _lock(folder)
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield file.fileno()


def is_locked(folder: Path) -> bool:
    """Whether some process works on the folder now."""
    try:
        with _lock(folder).open() as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except BlockingIOError:
        return True
    return False


def _lock(folder: Path) -> Path:
    return folder.parent / ".locks" / folder.name
