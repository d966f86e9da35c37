"""Runs a study's tree in dependency order, several runs at a time, skipping what is finished and going on where it was stopped."""

from __future__ import annotations

import multiprocessing
from collections.abc import Sequence
from concurrent.futures import Future
from concurrent.futures.process import BrokenProcessPool
from contextlib import suppress
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TaskID, TextColumn, TimeElapsedColumn

from unlearn_lightning.records import is_finished, read_run, record_path, write_json
from unlearn_lightning.run_key import UNREAD
from unlearn_lightning.study.execution import Job, execute
from unlearn_lightning.study.study_config import StudyConfig, merged
from unlearn_lightning.study.tree import Run
from unlearn_lightning.study.workers import Workers, devices_of

# A worker that dies (out of memory, killed) is replaced and its run goes on from its checkpoint, this many times.
RETRIES = 2


class RunFailed(Exception):
    """Some runs of a study failed; the others are finished."""


def run_study(
    study: StudyConfig, runs: Sequence[Run], folder: Path, console: Console, jobs: int = 1, wanted: Sequence[Run] | None = None,
    retry_failed: bool = False, devices: Sequence[str] = (),
) -> int:  # fmt: skip
    """Executes what is not finished.

    Args:
        study: the study.
        runs: its tree, parents before children.
        folder: the study folder; study.json is written there first.
        console: shows the progress.
        jobs: how many runs at a time, each in a process of its own; 1 runs them in this process.
        wanted: execute only these (with what they start from); null for all.
        retry_failed: also try again what failed before.
        devices: the GPUs to share out, as CUDA_VISIBLE_DEVICES names them; with several jobs each run sees its own only.

    Returns:
        How many runs were executed.

    Raises:
        RunFailed: some run failed; its descendants were left out, everything else was run.
        ValueError: data could not be read, or a run asks for GPUs that it cannot be given.
    """
    if unread := [run.name for run in runs if run.key.startswith(UNREAD)]:
        raise ValueError(f"The data of {unread[0]} could not be read, so it can be planned but not run.")
    chosen = set(runs if wanted is None else [w for run in wanted for w in (run, *run.ancestors())])
    runner = _Runner(study, [run for run in runs if run in chosen], console, jobs, retry_failed, devices)
    write_study(study, runs, folder)
    return runner.run()


def write_study(study: StudyConfig, runs: Sequence[Run], folder: Path) -> None:
    """Writes study.json, the list of runs that make up the study."""
    content = {"name": study.name, "forget": study.forget, "stages": study.other_stages(), "runs": [r.entry(folder) for r in runs]}
    write_json(folder / "study.json", content, indent=1)


class _Runner:
    def __init__(
        self, study: StudyConfig, runs: Sequence[Run], console: Console, jobs: int, retry_failed: bool, devices: Sequence[str]
    ) -> None:
        self.study, self.runs, self.jobs, self.devices = study, list(runs), jobs, devices
        # In this process a run sees all devices; several processes share them out.
        self.needed = {run.key: devices_of(run.config["trainer"], len(devices)) if jobs > 1 else 0 for run in runs}
        self.done = {run.key for run in runs if is_finished(run.folder)}
        self.failed: dict[str, str] = {} if retry_failed else {run.key: why for run in runs if (why := failure(run.folder))}
        self.deaths: dict[str, int] = {}
        columns = (SpinnerColumn(), TextColumn("{task.description:<34}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
        self.progress = Progress(*columns, console=console)
        self.tasks: dict[str, TaskID] = {}

    def run(self) -> int:
        before = len(self.done)
        self.overall = self.progress.add_task(f"study {self.study.name}", total=len(self.runs), completed=before)
        with self.progress:
            if self.jobs == 1:
                self._in_process()
            else:
                self._in_workers()
        missing = {run.key: run.name for run in self.runs if run.key not in self.done}
        if missing:
            lines = [f"{len(missing)} of {len(self.runs)} runs are missing:"]
            lines += [f"  {name}: {self.failed.get(key, 'waits for a run that failed')}" for key, name in missing.items()]
            for run in self.runs:
                if run.key in self.failed:
                    lines += [f"The end of {run.folder / 'log.txt'}:", *last_lines(run.folder / "log.txt")]
            raise RunFailed("\n".join([*lines, "To go on, mend the cause and add --retry-failed."]))
        return len(self.done) - before

    def _ready(self) -> list[Run]:
        """Runs whose parents are finished, and whose retrained model, which they are compared with, is finished or given up."""
        found = []
        for run in self.runs:
            if run.key in self.done or run.key in self.failed or run.key in self.tasks:
                continue
            retrained = run.compare.get("retrained")
            settled = retrained is None or retrained not in self.runs or retrained.key in self.done or self._given_up(retrained)
            if all(parent.key in self.done for parent in run.parents) and settled:
                found.append(run)
        return found

    def _given_up(self, run: Run) -> bool:
        return run.key in self.failed or any(self._given_up(parent) for parent in run.parents)

    def _in_process(self) -> None:
        while ready := self._ready():
            self._settle(ready[0], execute(self._start(ready[0]), self._tell))

    def _in_workers(self) -> None:
        running: dict[Future[str | None], Run] = {}
        with multiprocessing.get_context("spawn").Manager() as manager, Workers(self.jobs, self.devices) as workers:
            steps: Any = manager.Queue()
            while True:
                for run in self._ready():
                    if workers.room(self.needed[run.key]):
                        running[workers.submit(self.needed[run.key], _work, self._start(run), steps)] = run
                if not running:
                    break
                finished = workers.finished(timeout=0.2)
                while not steps.empty():
                    self._tell(*steps.get())
                for future in finished:
                    run = running.pop(future)
                    if isinstance(future.exception(), BrokenProcessPool):
                        self._worker_died(run)
                    else:
                        self._settle(run, future.result())

    def _worker_died(self, run: Run) -> None:
        self.deaths[run.key] = self.deaths.get(run.key, 0) + 1
        if is_finished(run.folder):
            self._settle(run, None)
        elif self.deaths[run.key] > RETRIES:
            self._settle(run, f"its process died {self.deaths[run.key]} times (killed, or out of memory?)")
        else:
            self.progress.remove_task(self.tasks.pop(run.key))

    def _start(self, run: Run) -> Job:
        self.tasks[run.key] = self.progress.add_task(run.name, total=None)
        tags = [f"{k}={v}" for k, v in run.tags.items() if k in ("seed", "p", "path_name", "objective") and v is not None]
        if path := run.tags["path"]:
            tags.append(f"path={'-'.join(path)}")
        settings = {"group": self.study.name, "job_type": run.kind, "name": run.name, "tags": tags}
        return Job(run.key, run.name, run.folder, with_comparisons(run), settings, self.study.threads)

    def _tell(self, key: str, done: int, total: int) -> None:
        if key in self.tasks:
            self.progress.update(self.tasks[key], completed=done, total=total)

    def _settle(self, run: Run, why_failed: str | None) -> None:
        self.progress.remove_task(self.tasks.pop(run.key))
        if why_failed is None:
            self.done.add(run.key)
            self.progress.advance(self.overall)
        else:
            self.failed[run.key] = why_failed
            if failure(run.folder) is None:
                write_json(run.folder / "run.json", {"status": "failed", "kind": run.kind, "key": run.key, "error": why_failed}, indent=1)


def failure(folder: Path) -> str | None:
    """Why the run in this folder failed; None when it did not."""
    content = read_run(folder) if (folder / "run.json").is_file() else {}
    return str(content["error"]) if content.get("status") == "failed" else None


def last_lines(path: Path, count: int = 4) -> list[str]:
    """The end of a log, indented."""
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines() if path.is_file() else ["(there is none)"]
    return [f"    {line}" for line in lines if line.strip()][-count:]


def _work(job: Job, steps: Any) -> str | None:
    def tell(*told: Any) -> None:
        # Where the study itself was killed nobody listens, which is no reason for its run to fail.
        with suppress(OSError, EOFError):
            steps.put(told)

    return execute(job, tell)


def with_comparisons(run: Run) -> dict[str, Any]:
    """The run's configuration with the runs that its divergence probe can compare with by now.

    The retrained model is always among them; of the sibling paths those that are finished. The report compares all with all.
    """
    callbacks = []
    for probe in run.config["trainer"]["callbacks"] or []:
        if probe["class_path"].rpartition(".")[2] == "PathDivergence" and run.compare:
            name = probe["init_args"].get("name") or "divergence"
            there = {n: str(r.folder) for n, r in run.compare.items() if is_finished(r.folder) and record_path(r.folder, name, 0).is_file()}
            retrained = there.pop("retrained", None)
            probe = merged(probe, {"init_args": {"retrained": retrained, "others": there}})
        callbacks.append(probe)
    return merged(run.config, {"trainer": {"callbacks": callbacks}})
