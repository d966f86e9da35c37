"""`unlearn status FOLDER --verify`: every file that a study's runs, or one run, made is hashed and compared with what run.json says.

verify(Path("runs/demo"))       # ["seed1/p4/npo: ../store/NPO-5b1c: metrics.csv differs from what the run wrote", ...]
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from unlearn_lightning.records import read_json, read_run
from unlearn_lightning.records.digests import differing
from unlearn_lightning.records.entries import entries
from unlearn_lightning.records.places import place_of

# A run's result, by the name of its folder; hidden files and Markdown are no part of it.
NO_PART = (".md",)


def verify(folder: Path) -> tuple[list[str], str]:
    """What differs in a study folder, a run folder, or a folder of runs, in a line each, and a line on what was looked at.

    Raises:
        FileNotFoundError: it is none of them.
    """
    if (folder / "run.json").is_file() and not (folder / "study.json").is_file():
        found, count = _run(folder, None)
        return [f"{folder}: {line}" for line in found], f"{count} files of one run were hashed"
    lines, files, runs = [], 0, 0
    for entry in entries(folder):
        place = place_of(folder, entry)
        if not (place / "run.json").is_file():
            continue
        found, count = _run(place, entry["key"])
        lines += [f"{entry['name']} ({place}): {line}" for line in found]
        files, runs = files + count, runs + 1
    return lines, f"{files} files of {runs} runs were hashed"


def _run(folder: Path, key: str | None) -> tuple[list[str], int]:
    """What differs in a run folder, and how many files were hashed."""
    try:
        run = read_run(folder)
    except (ValueError, OSError) as error:
        return [str(error)], 0
    if key is not None and run.get("key") != key:
        return [f"run.json is of another run (key {str(run.get('key'))[:12]}, not {key[:12]})"], 0
    if run["status"] != "finished":
        return list(_unfinished(folder)), 1
    result = run.get("result")
    if not isinstance(result, dict) or not isinstance(result.get("files"), dict):
        return ["run.json does not say what the run made (`result`)"], 0
    place, files = folder / str(result.get("folder")), run.get("files") or {}
    lines = [f"{place.name}/{name} {_how(place / name)}" for name in differing(place, result["files"], read=True)]
    lines += [f"{place.name}/{name} was added" for name in sorted(_there(place) - result["files"].keys())]
    lines += [f"{name} {_how(folder / name)}" for name in differing(folder, files, read=True)]
    records = {path.relative_to(folder).as_posix() for path in folder.glob("records/*/*.json")}
    lines += [f"{name} was added" for name in sorted(records - files.keys())] if files else []
    return lines, len(result["files"]) + len(files)


def _unfinished(folder: Path) -> Iterator[str]:
    """A run that is not finished has digests of nothing; its checkpoint has its own, and its records must be readable."""
    from unlearn_lightning.runs.checkpoint import check_undamaged, last_checkpoint

    if (checkpoint := last_checkpoint(folder)).is_file():
        try:
            check_undamaged(checkpoint)
        except ValueError as error:
            yield str(error)
    for path in sorted(folder.glob("records/*/*.json")):
        try:
            read_json(path)
        except (ValueError, OSError) as error:
            yield str(error)


def _there(folder: Path) -> set[str]:
    found = (path.relative_to(folder) for path in folder.rglob("*") if path.is_file() and path.suffix not in NO_PART)
    return {str(path) for path in found if not any(part.startswith(".") for part in path.parts)}


def _how(path: Path) -> Any:
    return "differs from what the run wrote" if path.is_file() else "is gone"
