"""The launcher on this machine: one run after the other in this process, or several workers with GPUs of their own."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Sequence
from concurrent.futures import Future
from concurrent.futures.process import BrokenProcessPool
from contextlib import suppress
from typing import TYPE_CHECKING

from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TaskID, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from unlearn_lightning.preemption import Stopped, check, held, was_asked
from unlearn_lightning.records import is_finished, read_json
from unlearn_lightning.study.launcher import Launcher
from unlearn_lightning.study.live_report import LiveReport
from unlearn_lightning.study.remaining import remaining_text
from unlearn_lightning.study.workers import Workers, devices_of, on_gpus, visible_devices

if TYPE_CHECKING:
    from unlearn_lightning.study.run import Run
    from unlearn_lightning.study.run_spec import RunSpec
    from unlearn_lightning.study.work import Work

# A worker that dies (out of memory, killed) is replaced and its run goes on from its checkpoint, this many times.
RETRIES = 2
LONG = 30 * 24 * 3600


class Local(Launcher):
    """On this machine, until the end, or Ctrl-C or SIGTERM, which end it at the next safe point; the same command goes on.

    Args:
        jobs: runs at a time, each on GPUs of its own; null for what the machine carries, 1 for this process.
        devices: the GPUs to share out, as CUDA_VISIBLE_DEVICES names them; null for those that can be seen.
    """

    def __init__(self, jobs: int | None = None, devices: tuple[str, ...] | None = None) -> None:
        if jobs is not None and jobs < 1:
            raise ValueError(f"A study needs at least one job at a time, got jobs: {jobs}.")
        self.jobs, self.devices = jobs, devices

    def launch(self, work: Work) -> bool:
        """Executes every run whose parents can be finished."""
        devices = visible_devices() if self.devices is None else self.devices
        _Execution(work, self.jobs or default_jobs(work, len(devices)), devices).run()
        return True


def default_jobs(work: Work, devices: int) -> int:
    """As many runs at a time as there are GPUs for them; on CPUs, as the cores carry where a run's threads are known, else 1."""
    if devices and any(on_gpus(run.config["trainer"]) for run in work.runs):
        return devices
    threads = work.study.threads
    return max(1, len(os.sched_getaffinity(0)) // threads) if threads else 1


class _Execution:
    def __init__(self, work: Work, jobs: int, devices: Sequence[str]) -> None:
        self.work, self.jobs, self.devices = work, jobs, devices
        # In this process a run sees all devices; several processes share them out.
        self.needed = {run.key: devices_of(run.config["trainer"], len(devices)) if jobs > 1 else 0 for run in work.runs}
        self.deaths: dict[str, int] = {}
        columns = (SpinnerColumn(), TextColumn("{task.description:<34}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
        # The time that is left follows from all runs that were finished, however long ago.
        left = (TextColumn("left"), TimeRemainingColumn(compact=True))
        self.progress = Progress(*columns, *left, console=work.console, speed_estimate_period=LONG)
        self.tasks: dict[str, TaskID] = {}
        self.page = LiveReport(work.folder, share=0.05, first=30)
        self.began, self.settled = time.monotonic(), 0

    def run(self) -> None:
        self.work.begin()
        work = self.work
        self.overall = self.progress.add_task(f"study {work.study.name}", total=len(work.runs), completed=len(work.done))
        try:
            with self.progress:
                # No process is started where every run is finished.
                if self.jobs == 1 or not work.ready():
                    self._in_process()
                else:
                    self._in_workers()
        finally:
            self.page.close()

    def _in_process(self) -> None:
        from unlearn_lightning.study.execution import execute

        while ready := self.work.ready():
            check()
            self._settle(ready[0], execute(self._start(ready[0]), self._tell))

    def _in_workers(self) -> None:
        running: dict[Future[str | None], Run] = {}
        told = False
        with held(), Workers(self.jobs, self.devices) as workers:
            while True:
                for run in [] if was_asked() else self.work.ready():
                    if workers.room(self.needed[run.key]):
                        running[workers.submit(self.needed[run.key], _work, self._start(run))] = run
                if not running:
                    break
                if was_asked() and not told:
                    workers.stop()
                    told = True
                for future in workers.finished(timeout=0.2):
                    self._ended(running.pop(future), future)
                self._show_steps(running.values())
        # Also where all that ran was finished: other runs may wait, and the report.
        check()

    def _ended(self, run: Run, future: Future[str | None]) -> None:
        if not isinstance(future.exception(), BrokenProcessPool | Stopped):
            self._settle(run, future.result())
        elif was_asked():
            self._put_back(run)
        else:
            self._worker_died(run)

    def _show_steps(self, runs: Iterable[Run]) -> None:
        for run in runs:
            with suppress(FileNotFoundError):
                progress = read_json(run.folder / "progress.json")
                self._tell(run.key, progress["step"], progress["steps"])

    def _put_back(self, run: Run) -> None:
        self.progress.remove_task(self.tasks.pop(run.key))
        self.work.take_back(run)

    def _worker_died(self, run: Run) -> None:
        self.deaths[run.key] = self.deaths.get(run.key, 0) + 1
        if is_finished(run.folder):
            self._settle(run, None)
        elif self.deaths[run.key] > RETRIES:
            self._settle(run, f"its process died {self.deaths[run.key]} times (killed, or out of memory?)")
        else:
            self._put_back(run)

    def _start(self, run: Run) -> RunSpec:
        self.tasks[run.key] = self.progress.add_task(run.name, total=None)
        return self.work.start(run)

    def _tell(self, key: str, done: int, total: int) -> None:
        if key in self.tasks:
            self.progress.update(self.tasks[key], completed=done, total=total)

    def _settle(self, run: Run, why_failed: str | None) -> None:
        self.progress.remove_task(self.tasks.pop(run.key))
        self.work.settle(run, why_failed)
        self.settled += 1
        if not self.progress.console.is_terminal:
            # A log file has no bars, and a study in it would be silent until its end.
            self.progress.console.print(
                settled_line(self.work, run, (time.monotonic() - self.began) / self.settled), markup=False, highlight=False, soft_wrap=True
            )
        if run.key in self.work.done:
            self.progress.advance(self.overall)
            self.page.refresh(len(self.work.done))


def settled_line(work: Work, run: Run, seconds: float) -> str:
    """What a log says of a run that ended: how, how many runs are finished, and how long the others take.

    Args:
        work: the study's runs.
        run: the one that ended.
        seconds: wall-clock time that one run took in this command, a mean over those that ended, however many run at a time.
    """
    how = f"failed: {work.failed[run.key]}" if run.key in work.failed else "finished"
    still = sum(one.key not in work.done and not work.given_up(one) for one in work.runs)
    left = remaining_text(seconds * still)
    return f"{run.name} {how} ({len(work.done)} of {len(work.runs)} runs{', ' if left else ''}{left})"


def _work(job: RunSpec) -> str | None:
    # Imported in the worker, after it was told its devices.
    from unlearn_lightning.study.execution import execute

    return execute(job)
