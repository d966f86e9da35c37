"""One run of a study, in this process or in a worker process: `unlearn fit` with its output in the run folder's log.txt."""

from __future__ import annotations

import logging
import os
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch

from unlearn_lightning.cli import lightning_cli
from unlearn_lightning.cli.measuring import measure
from unlearn_lightning.cli.quantised import measure_quantised
from unlearn_lightning.loggers.wandb_end import command_in_wandb, end_in_wandb
from unlearn_lightning.preemption import check
from unlearn_lightning.records import is_finished
from unlearn_lightning.study.measuring import begun_with, on_quantised, waited
from unlearn_lightning.study.run_spec import RunSpec, with_comparisons

Tell = Callable[[str, int, int], None]


def execute(job: RunSpec, tell: Tell | None = None) -> str | None:
    """Runs it; gives None, or why it failed. `Stopped` passes through: the run is not finished, and goes on when it is executed again.

    Args:
        job: the run.
        tell: called with key, finished and total optimizer steps; progress.json has them anyway, once a second.
    """
    if job.threads:
        torch.set_num_threads(job.threads)
    job.folder.mkdir(parents=True, exist_ok=True)
    with output_to(job.folder / "log.txt"), command_in_wandb():
        try:
            config = with_comparisons(job.config, job.compare)
            if job.measure is None and not is_finished(job.folder):
                trained, tickers = begun_with(config, job.folder), [Ticker(job.key, tell)] if tell else []
                lightning_cli.run({"subcommand": "fit", "fit": trained}, callbacks=tickers, wandb=job.wandb, resolved=trained)
            if is_finished(job.folder):
                late = waited(job.config, job.folder, job.compare.get("retrained"))
                measure(job.folder, config, job.measure, late, about=job.wandb)
                for kind in job.quantised:
                    if names := on_quantised(config, job.folder, kind, job.measure):
                        measure_quantised(job.folder, config, kind, names)
        except Exception as error:
            check()
            traceback.print_exc()
            end_in_wandb(failed=True)
            return f"{type(error).__name__}: {error}"
    return None


class Ticker(pl.Callback):
    """Tells the study after each micro-batch how many optimizer steps of a run are done."""

    def __init__(self, key: str, tell: Tell) -> None:
        self.key, self.tell = key, tell

    def on_train_batch_end(self, trainer: pl.Trainer, *args: Any) -> None:
        """Reports the optimizer steps that are done, and how many there are in all."""
        self.tell(self.key, trainer.global_step, trainer.datamodule.total_steps())  # type: ignore[attr-defined]


@contextmanager
def output_to(path: Path) -> Iterator[None]:
    """Everything that this process and its libraries print goes to a file."""
    sys.stdout.flush()
    sys.stderr.flush()
    saved = os.dup(1), os.dup(2)
    # Log handlers made before hold the terminal's stream object, whose file descriptor is redirected here as well.
    with path.open("a", encoding="utf-8") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
        try:
            yield
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            logging.captureWarnings(False)
            for descriptor, copy in zip((1, 2), saved, strict=True):
                os.dup2(copy, descriptor)
                os.close(copy)
