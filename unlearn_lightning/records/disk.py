"""What is said where a disk is full, whoever was writing: libraries word it in many ways, and most do not say where.

with writing(run_folder / "model"):
    net.save_pretrained(run_folder / "model")       # OSError: No space is left on the disk of runs/a/model (0 MB free of 50 MB). ...
"""

from __future__ import annotations

import errno
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

FULL = (errno.ENOSPC, errno.EDQUOT)
# An error of a library that does not say what went wrong is blamed on the disk where it has less room than this, in bytes.
LITTLE = 1 << 16


class DiskFull(OSError):
    """A disk is full, or the share of it that a user has."""


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Context in which errors of a full disk are worded.

    Args:
        path: what is written in it, a file or a folder.

    Raises:
        DiskFull: there was no space left. Other errors go through as they are.
    """
    try:
        yield
    except DiskFull:
        raise
    except Exception as error:
        if not _is_full(error, path):
            raise
        full = DiskFull(f"No space left on the disk of {path} ({_room(path)}). Make room there; the same command goes on, or begins anew.")
        full.errno = errno.ENOSPC
        raise full from error


def _is_full(error: Exception, path: Path) -> bool:
    if isinstance(error, OSError) and error.errno is not None:
        return error.errno in FULL
    said = str(error).lower()
    if "no space left" in said or "os error 28" in said or "quota exceeded" in said:
        return True
    try:
        # torch's writer only says that it failed, or that it is not where it should be.
        return ("failed writing" in said or "inline_container" in said) and shutil.disk_usage(_there(path)).free < LITTLE
    except OSError:
        return False


def _room(path: Path) -> str:
    try:
        usage = shutil.disk_usage(_there(path))
    except OSError:
        return "how much it has cannot be seen"
    return f"{usage.free // 10**6} MB free of {usage.total // 10**6} MB"


def _there(path: Path) -> Path:
    return next(folder for folder in (path, *path.absolute().parents) if folder.exists())
