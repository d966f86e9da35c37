"""Runs a study's tree in dependency order, in this process, skipping what is finished and going on where it was stopped."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
import wandb
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from unlearn_lightning import lightning_cli
from unlearn_lightning.records import is_finished, record_path, write_json
from unlearn_lightning.study.study_config import StudyConfig, merged
from unlearn_lightning.study.tree import Run


class RunFailed(Exception):
    """Some runs of a study failed; the others are finished."""


def run_study(study: StudyConfig, runs: Sequence[Run], folder: Path, console: Console) -> int:
    """Executes what is not finished.

    Args:
        study: the study.
        runs: its tree, parents before children.
        folder: the study folder; study.json is written there first.
        console: shows the progress.

    Returns:
        How many runs were executed.

    Raises:
        RunFailed: some run failed; its descendants were left out, everything else was run.
    """
    write_study(study, runs, folder)
    torch.set_num_threads(study.threads or torch.get_num_threads())
    done = {run.key for run in runs if is_finished(run.folder)}
    failed: dict[str, str] = {}
    executed = 0
    columns = (SpinnerColumn(), TextColumn("{task.description:<34}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console) as progress, _quiet():
        overall = progress.add_task(f"study {study.name}", total=len(runs), completed=len(done))
        for run in runs:
            if run.key in done or any(parent.key in failed for parent in run.parents):
                if run.key not in done:
                    failed[run.key] = "waits for a run that failed"
                continue
            task = progress.add_task(run.name, total=None)
            try:
                execute(run, study, Ticker(lambda done, total, t=task: progress.update(t, completed=done, total=total)))
                executed += 1
                progress.advance(overall)
            except Exception as error:
                failed[run.key] = f"{type(error).__name__}: {error}"
            progress.remove_task(task)
    if failed:
        names = {run.key: run.name for run in runs}
        lines = [f"  {names[key]}: {why}" for key, why in failed.items()]
        raise RunFailed("\n".join([f"{len(failed)} of {len(runs)} runs are missing:", *lines, "Run the same command again to go on."]))
    return executed


def write_study(study: StudyConfig, runs: Sequence[Run], folder: Path) -> None:
    """Writes study.json, the list of runs that make up the study."""
    content = {"name": study.name, "forget": study.forget, "stages": list(study.order), "runs": [r.entry(folder) for r in runs]}
    write_json(folder / "study.json", content, indent=1)


def execute(run: Run, study: StudyConfig, ticker: pl.Callback) -> None:
    """One `unlearn fit` in this process."""
    tags = [f"{k}={v}" for k, v in run.tags.items() if k in ("seed", "p", "objective") and v is not None]
    if path := run.tags["path"]:
        tags.append(f"path={'-'.join(path)}")
    config = with_comparisons(run)
    try:
        lightning_cli.run(
            {"subcommand": "fit", "fit": config},
            resolved=config,
            callbacks=[ticker],
            wandb={"group": study.name, "job_type": run.kind, "name": run.name, "tags": tags},
        )
    finally:
        wandb.finish()


def with_comparisons(run: Run) -> dict[str, Any]:
    """The run's configuration with the runs that its divergence probe can compare with by now."""
    callbacks = []
    for probe in run.config["trainer"]["callbacks"] or []:
        if probe["class_path"].rpartition(".")[2] == "PathDivergence" and run.compare:
            name = probe["init_args"].get("name") or "divergence"
            there = {n: str(r.folder) for n, r in run.compare.items() if is_finished(r.folder) and record_path(r.folder, name, 0).is_file()}
            retrained = there.pop("retrained", None)
            probe = merged(probe, {"init_args": {"retrained": retrained, "others": there}})
        callbacks.append(probe)
    return merged(run.config, {"trainer": {"callbacks": callbacks}})


class Ticker(pl.Callback):
    """Tells a progress bar how many optimizer steps are done."""

    def __init__(self, tick: Callable[[int, int], None]) -> None:
        self.tick = tick

    def on_train_batch_end(self, trainer: pl.Trainer, *args: Any) -> None:
        self.tick(trainer.global_step, int(trainer.estimated_stepping_batches))


class _quiet:
    """Hides the lines that Lightning, transformers and W&B print for every run."""

    def __enter__(self) -> None:
        self.loggers = [logging.getLogger(n) for n in ("lightning.pytorch", "lightning.fabric", "lightning")]
        self.levels = [logger.level for logger in self.loggers]
        for logger in self.loggers:
            logger.setLevel(logging.WARNING)
        self.silent = os.environ.get("WANDB_SILENT")
        os.environ["WANDB_SILENT"] = "true"

    def __exit__(self, *_: object) -> None:
        for logger, level in zip(self.loggers, self.levels, strict=True):
            logger.setLevel(level)
        if self.silent is None:
            os.environ.pop("WANDB_SILENT", None)
