"""Where the runs of a study lie, also after their store was renamed or moved beside the study.

place_of(Path("runs/demo"), entry)      # runs/store/NPO-5b1c..., or runs/old_store/NPO-5b1c... where that was renamed
"""

from __future__ import annotations

import functools
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any


def place_of(study: Path, entry: Mapping[str, Any]) -> Path:
    """A run's folder; the place that study.json names where it is nowhere.

    Args:
        study: the study folder.
        entry: the run's entry in study.json.
    """
    named = study / str(entry["folder"])
    if named.is_dir():
        return named
    # Also where a store is there: it may be another one, that took the place of one that was renamed.
    sought = (store / named.name for root in roots(study, named) for store in _stores(root, root.stat().st_mtime_ns))
    return next((place for place in sought if _is_run(place, entry["key"])), named)


def roots(study: Path, named: Path) -> list[Path]:
    """The folders in which, and in whose folders, a run is sought that is not where study.json says: those around study and store."""
    around = [study.absolute().parent, named.parent.absolute().parent]
    # With dots resolved by name, as the named folder need not exist.
    return [root for root in dict.fromkeys(Path(*_without_dots(folder.parts)) for folder in around) if root.is_dir()]


@functools.lru_cache(maxsize=64)
def _stores(root: Path, _changed: int) -> tuple[Path, ...]:
    """The folders with runs in them, of a folder and those in it; looked at again when one is added or renamed."""
    folders = (root, *sorted(filter(Path.is_dir, root.iterdir())))
    return tuple(folder for folder in folders if any((run / "run.json").is_file() for run in _in(folder)))


def _in(folder: Path) -> Iterator[Path]:
    with suppress(OSError):
        yield from folder.iterdir()


def missing(study: Path, entries: Sequence[Mapping[str, Any]]) -> str | None:
    """A line on the runs whose whole store is gone: how many they are and where they were sought; None where there are none."""
    gone = [named for entry in entries if not (named := study / entry["folder"]).parent.is_dir() and not place_of(study, entry).is_dir()]
    if not gone:
        return None
    store = Path(*_without_dots(gone[0].parent.absolute().parts))
    return (
        f"{len(gone)} of {len(entries)} runs are not where study.json says, as there is no folder {store}. They were sought in "
        f"{' and '.join(map(str, roots(study, gone[0])))} and the folders there. Move the store back, or beside the study."
    )


def _without_dots(parts: Sequence[str]) -> list[str]:
    found: list[str] = []
    for part in parts:
        if part == ".." and len(found) > 1:
            found.pop()
        elif part != "..":
            found.append(part)
    return found


def _is_run(place: Path, key: str) -> bool:
    try:
        found = json.loads((place / "run.json").read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return False
    return isinstance(found, dict) and found.get("key") == key
