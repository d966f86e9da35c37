"""Why a study trains again what it had trained before: which inputs of which run changed since study.json was written.

explain_changes(read_study(folder), runs)
# ["seed1/inst: data changed; it and 12 runs that start from it are trained again"]
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from unlearn_lightning.records import is_finished
from unlearn_lightning.records.places import place_of
from unlearn_lightning.study.run import Run

MEANING = {
    "run": "settings of the whole run",
    "data": "data (the texts, batch size, length or order)",
    "trainer": "trainer settings (epochs, steps, precision, clipping, ...)",
    "model": "objective, optimizer or schedule",
    "retain": "retain term (its data, loss or weight)",
    "backbone": "backbone settings or seed",
    "origins": "base model, tokenizer or chat template",
    "scratch": "model sizes",
    "corpus": "the tokenizer's texts",
    "probes": "this package's version, before which probes counted for a run",
    "code": "the source code of a class that it names",
    "callbacks": "callbacks that act on training",
    "version": "this package's results version",
}


def refuse_other_store(folder: Path, before: Mapping[str, Any], runs: Sequence[Run]) -> None:
    """Keeps a study whose store was renamed from training all its runs again.

    Args:
        folder: the study folder.
        before: the content of its study.json.
        runs: the study's tree now.

    Raises:
        ValueError: the runs of the last time lie in another store, and the one in which they would be looked for is not there.
    """
    wanted = {run.key: run.folder for run in runs}
    there = []
    for entry in before["runs"]:
        key = entry["key"]
        if key not in wanted or wanted[key].is_dir() or not is_finished(place := place_of(folder, entry)):
            continue
        # Whoever names another store that is there means it.
        if not wanted[key].parent.is_dir() or os.path.realpath(folder / entry["folder"]) == os.path.realpath(wanted[key]):
            there.append(place)
    if there:
        store = runs[0].folder.parent
        why = f"not in {store}" if store.is_dir() else f"there is no {store}"
        raise ValueError(
            f"{len(there)} finished runs of this study lie in {there[0].parent}, and {why}. "
            f"Go on from them with --store {there[0].parent}; to train all again instead, remove {folder / 'study.json'}."
        )


def refuse_other_study(folder: Path, before: Mapping[str, Any], name: str) -> None:
    """Keeps a study from taking the folder of another, whose account of its runs would be lost.

    Args:
        folder: the study folder.
        before: the content of its study.json.
        name: of the study that is about to start.

    Raises:
        ValueError: the folder is another study's.
    """
    if (found := before.get("name", name)) != name:
        raise ValueError(
            f"{folder} holds the study {found!r}, and this one is {name!r}. Name another --folder, or remove {folder / 'study.json'}."
        )


def explain_changes(before: Mapping[str, Any], runs: Sequence[Run]) -> list[str]:
    """One line for each run whose own inputs changed; runs that only start from such a run are counted with it.

    Args:
        before: the content of the study.json that is about to be replaced.
        runs: the study's tree now, parents before children.
    """
    old = {run["name"]: run for run in before["runs"]}
    heirs = Counter(before.key for run in runs for before in set(run.ancestors()))
    lines = []
    for run in runs:
        was = old.get(run.name)
        if was is None or was["key"] == run.key or "inputs" not in was:
            continue
        changed = [MEANING[part] for part in MEANING if was["inputs"].get(part) != run.inputs.get(part)]
        if changed:
            own = heirs[run.key]
            lines.append(f"{run.name}: changed {' and '.join(changed)}; it and the {own} runs that start from it are trained again.")
    return lines
