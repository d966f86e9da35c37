"""`unlearn study CONFIG`: plans the tree, runs what is missing, and shows the outcome."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path

import jsonargparse
from rich.console import Console

from unlearn_lightning.records import write_text
from unlearn_lightning.study.study_config import StudyConfig


def parser() -> jsonargparse.ArgumentParser:
    """The arguments of `unlearn study`."""
    found = jsonargparse.ArgumentParser(
        prog="unlearn study", description="Trains, unlearns and measures all the paths of a study, skipping what is finished."
    )
    found.add_argument("--config", action="config", help="The study's YAML file; `unlearn study FILE` is short for it.")
    found.add_argument("--store", default="runs/store", help="Folder of run folders; studies that share it share equal runs.")
    found.add_argument("--folder", type=str | None, default=None, help="The study folder; null for runs/<name>.")
    found.add_argument("--jobs", type=int | None, default=None, help="Runs at a time; null for all cores where `threads` is set, else 1.")
    found.add_class_arguments(StudyConfig, as_group=False)
    return found


def study(arguments: Sequence[str]) -> int:
    """Runs the command and returns its exit status: 1 when a run failed."""
    first, *rest = arguments or ["--help"]
    if not first.startswith("-"):
        if not Path(first).is_file():
            print(f"unlearn study: there is no study configuration {first}. The folder configs/studies holds some.", file=sys.stderr)
            return 2
        rest = ["--config", first, *rest]
    own = parser()
    parsed = own.parse_args(rest if rest else [first])
    options = parsed.as_dict()
    options.pop("config")
    store, folder = Path(options.pop("store")), options.pop("folder")
    jobs = options.pop("jobs")
    config = StudyConfig(**options)
    study_folder = Path(folder or f"runs/{config.name}")
    console = Console()

    with console.status("planning"):
        from unlearn_lightning.lightning_cli import Resolver
        from unlearn_lightning.study.runner import RunFailed, run_study
        from unlearn_lightning.study.tree import plan

        runs = plan(config, store, Resolver().resolve)
    stages = sum(run.kind == "stage" for run in runs)
    console.print(f"Study [b]{config.name}[/]: {stages} training runs, {len(runs) - stages} unlearning runs.")
    write_text(study_folder / "study.yaml", own.dump(parsed, skip_none=False))
    status = 0
    try:
        executed = run_study(config, runs, study_folder, console, jobs or default_jobs(config))
        console.print(f"{executed} runs executed, {len(runs) - executed} were finished already.")
    except RunFailed as failure:
        console.print(str(failure), markup=False, style="red")
        status = 1

    from unlearn_lightning.report import build

    report = build(study_folder)
    report.print(console)
    return status


def default_jobs(config: StudyConfig) -> int:
    """As many runs at a time as the cores carry, where a run's threads are known; the user decides about GPUs."""
    return max(1, len(os.sched_getaffinity(0)) // config.threads) if config.threads else 1
