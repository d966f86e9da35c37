"""A run folder before work starts in it: it can be written, and it is this run's.

check_writable(folder)
claim(folder, key)          # refuses another run's folder, and clears one that a flag cut short
"""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path

from lightning.pytorch.utilities.rank_zero import rank_zero_info

from unlearn_lightning.records import read_run
from unlearn_lightning.runs.content import RESULTS


def check_writable(folder: Path) -> None:
    """Finds a read-only or full disk before training does.

    Raises:
        OSError: the run folder cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        # It has no name, so that several processes may look at one folder at once, and one that is killed leaves nothing.
        with tempfile.TemporaryFile(dir=folder) as file:
            file.write(b"0" * 4096)
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        raise OSError(
            f"The run folder {folder} cannot be written ({error.strerror}). Nothing was trained; choose another with --run_folder, "
            "or make room."
        ) from error


def claim(folder: Path, key: str, first: bool = True) -> None:
    """Makes sure that what lies in a run folder is this run's own, or gone.

    Args:
        folder: the run folder; it need not exist.
        key: the key of the run that is about to start.
        first: whether this process is the one that writes the folder.

    Raises:
        ValueError: another run lies there, with other settings or data.
    """
    try:
        there = read_run(folder)
    except FileNotFoundError:
        return
    found = str(there.get("key"))
    if there["status"] == "cut_short":
        rank_zero_info(f"{folder} holds a run that {there['cut_short_by']} cut short; this one takes its place.")
        if first:
            clear(folder)
    elif found != key:
        raise ValueError(
            f"{folder} holds a run with other settings or data (key {found[:12]}, this one's is {key[:12]}). "
            "Choose another --run_folder, or delete it."
        )


def clear(folder: Path) -> None:
    """Deletes what an earlier run left in a run folder, so that none of its records or weights is taken for the next one's."""
    for name in ("records", "checkpoints", *RESULTS):
        shutil.rmtree(folder / name, ignore_errors=True)
    for name in ("run.json", "metrics.csv", "progress.json", "logged_as.json"):
        (folder / name).unlink(missing_ok=True)
