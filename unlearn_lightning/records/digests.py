"""SHA-256 of files, with the size and time by which one sees without reading that nothing changed.

facts = digests(run_folder, ["metrics.csv", "model/config.json"])   # {"metrics.csv": {"sha256": ..., "size": 812, "mtime_ns": ...}, ...}
differing(run_folder, facts)                                        # ["metrics.csv"]: its content is another one now
"""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

Facts = Mapping[str, Mapping[str, Any]]


def digests(folder: Path, names: Iterable[str]) -> dict[str, dict[str, Any]]:
    """SHA-256, size in bytes and time in nanoseconds of files below a folder, by their names."""
    found = {}
    for name in names:
        path = folder / name
        size, time = stamp(path)
        found[name] = {"sha256": sha256(path, size, time), "size": size, "mtime_ns": time}
    return found


def differing(folder: Path, facts: Facts, read: bool = False) -> list[str]:
    """The recorded files that are gone or hold something else than was recorded.

    Args:
        folder: the folder below which they lie.
        facts: what was recorded of them.
        read: hash each of them anew, also where size and time are as recorded.
    """
    return [name for name in sorted(facts) if not is_as_recorded(folder / name, facts[name], read)]


def is_as_recorded(path: Path, facts: Mapping[str, Any], read: bool = False) -> bool:
    """Whether a file holds what was recorded; it is hashed where its time is another one, and where `read` asks for it."""
    try:
        found = stamp(path)
    except OSError:
        return False
    if found[0] != facts["size"]:
        return False
    if read:
        return _hash(path) == str(facts["sha256"])
    return bool(found[1] == facts["mtime_ns"]) or sha256(path, *found) == str(facts["sha256"])


def stamp(path: Path) -> tuple[int, int]:
    """A file's size in bytes and time of change in nanoseconds."""
    status = path.stat()
    return status.st_size, status.st_mtime_ns


@functools.lru_cache(maxsize=4096)
def sha256(path: Path, size: int, mtime_ns: int) -> str:
    """Hashes a file once per process as long as its size and time stay: a study's runs share their base model, which may be large."""
    return _hash(path)


def _hash(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
