"""`unlearn watch STUDY`: a study's runs in the terminal as they go on, and its page kept up to date.

unlearn watch runs/demo              until everything is done, or Ctrl-C; the study does not notice
unlearn watch runs/demo --once       one picture, for scripts
"""

from __future__ import annotations

import argparse
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console, Group
from rich.live import Live

from unlearn_lightning.cli.terminal import terminal_console
from unlearn_lightning.preemption import Stopped
from unlearn_lightning.study.frame import ProbeMetrics, frame
from unlearn_lightning.study.live_report import LiveReport
from unlearn_lightning.study.state import RunState, study_states
from unlearn_lightning.study.status import tasks_of


def parser() -> argparse.ArgumentParser:
    """The arguments of `unlearn watch`."""
    found = argparse.ArgumentParser(
        prog="unlearn watch",
        description="Shows what runs, how far it is and what was measured so far, from a study's files and SLURM's queue alone; "
        "makes the report again as runs finish, and an open page loads it.",
        allow_abbrev=False,
    )
    found.add_argument("study", metavar="STUDY", type=Path, help="the study folder, such as runs/demo, a run folder, or a folder of runs")
    found.add_argument("--once", action="store_true", help="print one picture and leave the report as it is")
    found.add_argument("--every", metavar="SECONDS", type=float, default=2.0, help="seconds between two pictures (default: 2)")
    found.add_argument("--no-report", dest="report", action="store_false", help="leave the report as it is")
    return found


def watch(arguments: Sequence[str]) -> int:
    """Runs the command and returns its exit status: 1 when runs failed, 2 when there is no readable study or run."""
    options = parser().parse_args(list(arguments) or ["--help"])
    if not options.every > 0:
        print(f"unlearn watch: --every is a number of seconds above 0, got {options.every:g}.", file=sys.stderr)
        return 2
    watched, console = _Watched(options.study), terminal_console()
    try:
        if options.once:
            console.print(watched.picture(console.width))
        else:
            _follow(watched, console, options.every, options.report)
    except (FileNotFoundError, ValueError) as error:
        print(f"unlearn watch: {error}", file=sys.stderr)
        return 2
    except Stopped as stop:
        # A reader stops watching with Ctrl-C, which is no error.
        if stop.code != 128 + signal.SIGINT:
            raise
    return int(any(run.state == "failed" for run in watched.runs))


class _Watched:
    """A study folder, read again for each picture."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.measured = folder, ProbeMetrics()
        self.runs: list[RunState] = []

    def picture(self, width: int, height: int | None = None) -> Group:
        tasks, note = tasks_of(self.folder)
        self.runs = study_states(self.folder, tasks)
        return frame(self.runs, self.measured, str(self.folder), note, height, width)

    def finished(self) -> int:
        return sum(run.state == "finished" for run in self.runs)

    def is_over(self) -> bool:
        """Whether nothing can go on by itself: all is finished, or failed, or waits for what failed."""
        stuck: set[str] = set()
        for run in self.runs:
            if run.state == "failed" or (run.state == "waiting" and stuck & set(run.parents)):
                stuck.add(run.key)
            elif run.state != "finished":
                return False
        return True


def _follow(watched: _Watched, console: Console, every: float, report: bool) -> None:
    page = LiveReport(watched.folder, share=0.25)
    with Live(watched.picture(console.width, console.height), console=console, auto_refresh=False) as live:
        while not watched.is_over():
            if report:
                page.refresh(watched.finished())
            time.sleep(every)
            live.update(watched.picture(console.width, console.height), refresh=True)
    page.close()
    if report and watched.finished():
        from unlearn_lightning.report import build

        # Without the queue's last job, or where that failed: the page of a study that is over follows nothing.
        made = build(watched.folder)
        console.print(made.verdict.headline, style="bold", highlight=False, markup=False)
        console.print(f"Report: {made.folder / 'index.html'}", highlight=False, markup=False, soft_wrap=True)
