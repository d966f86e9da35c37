"""What a launcher has to do: the runs of a study that are not finished, what each waits for, and what has become of them.

while ready := work.ready():
    job = work.start(ready[0])
    work.settle(ready[0], execute(job))     # or start `work.command(job)` anywhere that sees the same files
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from unlearn_lightning.preemption import check
from unlearn_lightning.records import is_finished, remove_left_overs, write_json
from unlearn_lightning.study.measuring import lacking, to_measure
from unlearn_lightning.study.run import Run, with_ancestors
from unlearn_lightning.study.run_spec import RunSpec, failure, note_failure, write_spec
from unlearn_lightning.study.study_config import StudyConfig

# The tags that a run's name says already, and the note that a run serves as a retrained model.
IN_NAME = ("seed", "path", "p", "path_name", "objective", "retrained", "retrained_of", "requests", "relearning")


class RunFailed(Exception):
    """Raised when some runs of a study have failed and the others are finished."""


class Work:
    """The runs to execute, and what has become of each.

    Args:
        study: the study.
        runs: its tree, parents before children.
        folder: the study folder; study.json is written there.
        console: where a launcher says what it does.
        wanted: execute only these (with what they start from); null for all.
        retry_failed: also try again what failed before.
        named: train nothing, and measure these probes on the finished ones; null for all runs and their probes.

    Attributes:
        runs: those that are wanted, parents before children.
        done: keys of those that are finished and have what their probes measure.
        trained: keys of those that were finished before.
        lacking: of these, key -> the probes that are still to be measured on them.
        failed: key -> why.

    Raises:
        ValueError: data could not be read, or runs were measured with other settings of a probe.
    """

    def __init__(
        self, study: StudyConfig, runs: Sequence[Run], folder: Path, console: Console, wanted: Sequence[Run] | None = None,
        retry_failed: bool = False, named: Sequence[str] | None = None,
    ) -> None:  # fmt: skip
        from unlearn_lightning.runs.run_key import UNREAD  # This import loads torch, which `--help` must not wait for.

        if unread := [run.name for run in runs if run.key.startswith(UNREAD)]:
            raise ValueError(f"The data or the model of {unread[0]} could not be read, so it can be planned but not run.")
        self.study, self.folder, self.console = study, folder, console
        self.named = named
        if named is not None:
            wanted = [run for run in (runs if wanted is None else wanted) if is_finished(run.folder)]
        asked = set(runs if wanted is None else wanted)
        self.runs = with_ancestors(runs, asked) if named is None else [run for run in runs if run in asked]
        self.trained = {run.key for run in self.runs if is_finished(run.folder)}
        self.lacking = to_measure(self.runs, named)
        self.done = self.trained - self.lacking.keys()
        self.failed = {} if retry_failed else {run.key: why for run in self.runs if (why := failure(run.folder))}
        self.started: set[str] = set()
        self._tree, self._chosen = list(runs), set(self.runs)

    def begin(self) -> None:
        """Writes study.json, the list of runs that make up the study; a launcher calls it once nothing is left to refuse."""
        remove_left_overs(self.folder)
        write_study(self.study, self._tree, self.folder)

    def ready(self) -> list[Run]:
        """Runs that can start: not started, finished or failed, and nothing that they wait for is open."""
        taken = self.done | self.started | self.failed.keys()
        return [run for run in self.runs if run.key not in taken and self.parents_done(run) and self.awaited(run) is None]

    def parents_done(self, run: Run) -> bool:
        """Whether all runs that this one starts from are finished."""
        return all(parent.key in self.done or parent not in self.runs for parent in run.parents)

    def awaited(self, run: Run) -> Run | None:
        """The retrained model that the run is compared with, unless it is finished or given up."""
        retrained = run.compare.get("retrained")
        settled = retrained is None or retrained not in self._chosen or retrained.key in self.done or self.given_up(retrained)
        return None if settled else retrained

    def given_up(self, run: Run) -> bool:
        """Whether this run failed, or one that it starts from did."""
        return run.key in self.failed or any(self.given_up(parent) for parent in run.parents)

    def start(self, run: Run) -> RunSpec:
        """Marks the run as started, and gives what its process needs to know."""
        self.started.add(run.key)
        path = "-".join(run.tags["path"]) or None
        tags = [f"{name}={value}" for name, value in {**run.tags, "path": path}.items() if value is not None]
        # What the study says of a variant is not always in its name.
        varied = [f"{name}={value}" for name, value in run.tags.items() if name not in IN_NAME]
        settings = {"group": self.study.name, "job_type": run.kind, "name": " ".join([run.name, *varied]), "tags": tags}
        compare = {name: other.folder for name, other in run.compare.items()}
        parents = tuple(parent.folder for parent in run.parents)
        named = None if self.named is None else tuple(self.named)
        return RunSpec(
            run.key, run.name, run.kind, run.folder, run.config, settings, self.study.threads, compare, parents, named, run.quantised
        )

    def command(self, job: RunSpec) -> list[str]:
        """A command that executes the job on any machine with the same files, the words of a command line; one_run.py says how it ends."""
        file = self.folder.absolute() / "jobs" / f"{job.name.replace('/', '-')}.json"
        write_spec(file, job)
        return [sys.executable, "-m", "unlearn_lightning.study.one_run", str(file)]

    def take_back(self, run: Run) -> None:
        """Marks a started run as not started, so that it is ready again."""
        self.started.discard(run.key)

    def settle(self, run: Run, why_failed: str | None = None) -> None:
        """Notes the end of a started run: finished, or why it failed.

        Raises:
            Stopped: this process was asked to stop, and the run is not finished.
        """
        if why_failed is None and not is_finished(run.folder):
            why_failed = "it ended and is not finished"
        elif why_failed is None and (missing := lacking(run, self.named)):
            why_failed = f"{', '.join(missing)} was not measured"
        if why_failed is not None:
            # Whoever asked this process to stop may have asked the run's, too, which is no failure.
            check()
        if why_failed is None:
            self.done.add(run.key)
        else:
            self.failed[run.key] = why_failed
            # A finished run stays finished where measuring it failed.
            note_failure(run, why_failed)
        self.started.discard(run.key)

    def check(self) -> None:
        """Returns if every run is finished, and raises otherwise.

        Raises:
            RunFailed: some are not; the message says what failed, what waits for it, and shows the ends of the logs.
        """
        missing = {run.key: run.name for run in self.runs if run.key not in self.done}
        if missing:
            lines = [f"{len(missing)} of {len(self.runs)} runs are missing:"]
            lines += [f"  {name}: {self.failed.get(key, 'waits for a run that failed')}" for key, name in missing.items()]
            for run in self.runs:
                if run.key in self.failed:
                    lines += [f"The end of {run.folder / 'log.txt'}:", *last_lines(run.folder / "log.txt")]
            raise RunFailed("\n".join([*lines, "To go on, mend the cause and add --retry-failed."]))


def write_study(study: StudyConfig, runs: Sequence[Run], folder: Path) -> None:
    """Writes study.json."""
    content: dict[str, Any] = {
        "name": study.name,
        "forget": study.forget,
        "stages": study.other_stages(),
        "runs": [r.entry(folder) for r in runs],
    }
    if relearning := study.each_relearning():
        content["relearning"] = {one.name: one.entry() for one in relearning}
    # Where a store is missing it was moved, and not merely empty as yet.
    for store in {run.folder.parent for run in runs}:
        store.mkdir(parents=True, exist_ok=True)
    write_json(folder / "study.json", content, indent=1)


def last_lines(path: Path, count: int = 4) -> list[str]:
    """The end of a log, indented."""
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines() if path.is_file() else ["(there is none)"]
    return [f"    {line}" for line in lines if line.strip()][-count:]
