"""How each run of a study, or of a folder of runs, is doing, from their files: no torch, no process to ask. A queue's view may be added.

for run in study_states(Path("runs/demo")):
    print(run.name, run.state, run.step, run.steps)     # seed1/p4/npo running 7 16
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from unlearn_lightning.records import is_locked, read_json, read_run
from unlearn_lightning.records.entries import entries
from unlearn_lightning.records.places import place_of
from unlearn_lightning.records.texts import plain_text
from unlearn_lightning.study.slurm_queue import Task, log_of, queued, submission

COLOURS = {"finished": "green", "running": "cyan", "queued": "blue", "stopped": "yellow", "failed": "red", "ready": "", "waiting": "dim"}
STATES = tuple(COLOURS)


@dataclass(frozen=True)
class RunState:
    """A run and its state.

    Attributes:
        key, name, kind, folder: of the run, as in study.json; the folder may be missing.
        parents: keys of the runs it starts from.
        state: finished; running (a process works on it); queued (a cluster will start it); stopped (it was killed, and goes on when the
            study does); failed; ready (nothing holds it up); waiting (for a run that it starts from).
        step, steps: optimizer steps done and in all; null where they are not known.
        why: what failed, what a finished run is still to be measured on, or the names of the runs that it waits for.
        task: what SLURM's queue says of it.
    """

    key: str
    name: str
    kind: str
    folder: Path
    parents: tuple[str, ...]
    state: str
    step: int | None = None
    steps: int | None = None
    why: str = ""
    task: Task | None = None


def study_states(folder: Path, tasks: Sequence[Task] | None = None) -> list[RunState]:
    """The runs of a study folder in its order, parents before children; or a single run, or the runs of a folder of runs.

    Args:
        folder: the study folder, the run folder, or the folder of runs.
        tasks: SLURM's queue (`slurm_queue.queue`); null to go by the files alone.

    Raises:
        FileNotFoundError: there is neither a study nor a run.
        ValueError: a file is damaged or of another format.
    """
    found: dict[str, RunState] = {}
    for entry in entries(folder):
        found[entry["key"]] = _state(entry, place_of(folder, entry), found)
    if tasks is not None:
        there = queued({key: run.folder for key, run in found.items()}, tasks)
        found = {key: _in_queue(run, there.get(key)) for key, run in found.items()}
    return list(found.values())


def counts(runs: Sequence[RunState]) -> str:
    """How many runs are in each state, for example `3 finished, 1 running, of 15 runs`."""
    found = Counter(run.state for run in runs)
    return ", ".join([*(f"{found[state]} {state}" for state in STATES if found[state]), f"of {len(runs)} run{'s' * (len(runs) != 1)}"])


def is_submitted(folder: Path) -> bool:
    """Whether runs of a study were ever submitted to a queue."""
    return any(submission(folder / entry["folder"]) for entry in entries(folder))


def _in_queue(run: RunState, task: Task | None) -> RunState:
    """The run's state where a queue is known: a lock may not be seen from another machine, and a job may be lost before its run began."""
    if task is None:
        place = submission(run.folder)
        if place and run.state in ("ready", "stopped"):
            log = log_of(*place)
            why = f"; {log} may say why" if log.exists() else " before it began, such as by scancel"
            return replace(run, why=f"its job has left the queue{why}; the study submits it again")
        return run
    if run.state in ("finished", "running") or task.state == "COMPLETING":
        return replace(run, task=task)
    return replace(run, state="running" if task.state == "RUNNING" else "queued", task=task)


def _state(entry: dict[str, Any], folder: Path, before: dict[str, RunState]) -> RunState:
    try:
        run = read_run(folder) if (folder / "run.json").is_file() else {}
        progress = read_json(folder / "progress.json") if (folder / "progress.json").is_file() else {}
        problem = ""
    except (ValueError, OSError) as error:
        run, progress, problem = {}, {}, plain_text(str(error))
    own = (entry["key"], plain_text(entry["name"]), entry["kind"], folder, tuple(entry["parents"]))
    step, steps = progress.get("step"), progress.get("steps")
    if problem:
        return RunState(*own, "failed", why=problem)
    if run.get("status") == "finished":
        return RunState(*own, "finished", run.get("steps"), run.get("steps"), _still_quantised(entry, run))
    if is_locked(folder):
        return RunState(*own, "running", step, steps)
    if run.get("status") == "failed":
        return RunState(*own, "failed", step, steps, plain_text(str(run.get("error") or "")))
    if run:
        return RunState(*own, "stopped", step, steps)
    missing = [before[key] for key in entry["parents"] if key in before and before[key].state != "finished"]
    return RunState(*own, "waiting" if missing else "ready", why=", ".join(parent.name for parent in missing))


def _still_quantised(entry: dict[str, Any], run: dict[str, Any]) -> str:
    """On which quantised weights a finished run's result is still to be measured; empty where nothing is missing."""
    kinds = [kind for kind in entry.get("quantised", ()) if not any(name.endswith(f".{kind}") for name in run.get("probes", {}))]
    return f"still to be measured on {' and '.join(kinds)} weights" if kinds else ""
