"""The runs below a folder, whatever it is: those of a study, one run, or those of a folder of runs and studies, such as a grid's.

entries(Path("runs/grid"))      # [{"key": "5b1c...", "name": "lr1e-4", "kind": "unlearn", "folder": "lr1e-4", "parents": []}, ...]
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from unlearn_lightning.records import read_run, read_study
from unlearn_lightning.records.texts import natural, plain_text

Entry = dict[str, Any]


def entries(folder: Path) -> list[Entry]:
    """The runs as study.json lists them: key, name, kind, folder from `folder` on, and the keys of the runs that each starts from.

    A run that lies in two folders is there once. Of folders below those directly in `folder` nothing is read.

    Raises:
        FileNotFoundError: there is neither a study nor a run.
        ValueError: a study.json is damaged or of another format.
    """
    if (folder / "study.json").is_file():
        found: list[Entry] = read_study(folder)["runs"]
        return found
    if (folder / "run.json").is_file():
        return [_of_run(folder, ".", folder.resolve().name)]
    below = [
        place for place in (sorted(folder.iterdir(), key=lambda place: natural(place.name)) if folder.is_dir() else []) if _is_one(place)
    ]
    if not below:
        raise FileNotFoundError(no_runs_in(folder))
    runs: dict[str, Entry] = {}
    for place in below:
        if (place / "study.json").is_file():
            several = [{**run, "name": f"{place.name}/{run['name']}", "folder": f"{place.name}/{run['folder']}"} for run in entries(place)]
        else:
            several = [_of_run(place, place.name, place.name)]
        for run in several:
            runs.setdefault(run["key"], run)
    return list(runs.values())


def no_runs_in(folder: Path) -> str:
    """Says of a folder without study and run what it is instead, and what to do."""
    if not folder.exists():
        return f"There is no folder {folder}. `unlearn study` writes its folder to runs/<its name>, and a run has its own, its run_folder."
    if not folder.is_dir():
        return f"{folder} is a file. Name the folder of a study or of a run, such as runs/demo."
    if (folder / "config.yaml").is_file():
        return (
            f"{folder} holds the configuration of a run and no run.json: the run was refused or ended before it began, so that nothing is "
            f"recorded. `unlearn fit -c {folder / 'config.yaml'}` starts it, and says what is wrong if it is refused."
        )
    there = sorted(place.name for place in folder.iterdir())
    holds = f"holds {', '.join(map(plain_text, there[:3]))}{', ...' if len(there) > 3 else ''}" if there else "is empty"
    return (
        f"{folder} {holds}: there is no study.json and no run.json in it, nor in the folders in it. A study writes the one at its start, "
        "to runs/<its name>, and a run the other, to its run folder."
    )


def _is_one(place: Path) -> bool:
    return (place / "study.json").is_file() or (place / "run.json").is_file()


def _of_run(place: Path, folder: str, name: str) -> Entry:
    try:
        run = read_run(place)
    except (ValueError, OSError):
        # Whoever looks at the run finds the same fault, and says it.
        run = {}
    return {
        "key": str(run.get("key") or place.resolve()), "name": name, "kind": str(run.get("kind") or "run"), "folder": folder,
        "parents": [str(parent) for parent in run.get("parents") or ()],
    }  # fmt: skip
