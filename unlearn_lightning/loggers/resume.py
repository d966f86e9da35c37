"""A run that is stopped and goes on is one run in W&B, MLflow and TensorBoard too.

logged = logged_run(folder, key, folder / "checkpoints" / "last.ckpt")      # LoggedRun(id="3f9c0d1e5a7b2846", goes_on_at=199)

metrics.csv is what such loggers are made to agree with: what they lost, or never got, they are given from it.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
from lightning.pytorch.loggers import Logger, MLFlowLogger, TensorBoardLogger, WandbLogger

from unlearn_lightning.records import read_json, write_json
from unlearn_lightning.runs.resume import Resume, first_step_again

FILE = "logged_as.json"


@dataclass(frozen=True)
class LoggedRun:
    """How a run is known to its loggers.

    Attributes:
        id: the same for as long as its folder is, and no other run's.
        goes_on_at: the first step that is logged again; null for a run that was not begun before.
    """

    id: str
    goes_on_at: int | None = None


def logged_run(folder: Path, key: str, checkpoint: Path | None) -> LoggedRun:
    """The run's id from its folder, which is drawn where there is none, or another run's.

    The key would not do as an id: two people, or two stores, that train the same run in one W&B project would write into one run.

    Args:
        folder: the run folder.
        key: the run's.
        checkpoint: where the run goes on; null where it begins.
    """
    known = read_json(folder / FILE) if (folder / FILE).is_file() else {}
    begun = known.get("key") == key or (folder / "run.json").is_file()
    if known.get("key") != key:
        known = {"id": secrets.token_hex(8), "key": key}
        write_json(folder / FILE, known)
    return LoggedRun(known["id"], first_step_again(checkpoint) if begun else None)


class ResumeInLoggers(Resume):
    """Also gives the other loggers of a run that goes on what they lack.

    Args:
        checkpoint: the file that the run goes on from; null for a run that begins.
        goes_on_at: the first step that is logged again; null for a run that begins.
    """

    def __init__(self, checkpoint: str | None, goes_on_at: int | None) -> None:
        super().__init__(checkpoint)
        self.goes_on_at = goes_on_at

    def tell_loggers(self, trainer: pl.Trainer, rows: Callable[[], Iterable[dict[str, Any]]]) -> None:
        """Logs rows again, from the step that the logger needs."""
        if self.goes_on_at is None:
            return
        for logger in trainer.loggers:
            since = self._since(logger, self.goes_on_at)
            if since is None:
                continue
            for row in (row for row in rows() if int(row["step"]) >= since):
                values = {name: float(value) for name, value in row.items() if name != "step" and value not in ("", None)}
                if values:
                    logger.log_metrics(values, step=int(row["step"]))

    def on_save_checkpoint(self, trainer: pl.Trainer, pl_module: Any, checkpoint: dict[str, Any]) -> None:
        """Also writes out TensorBoard's events, which would wait up to two minutes in memory."""
        super().on_save_checkpoint(trainer, pl_module, checkpoint)
        for logger in trainer.loggers if trainer.is_global_zero else ():
            if isinstance(logger, TensorBoardLogger):
                logger.experiment.flush()

    @staticmethod
    def _since(logger: Logger, goes_on_at: int) -> int | None:
        """The first step that the logger lacks, which may have later ones; None where nothing is known of it."""
        if isinstance(logger, WandbLogger):
            return 0 if _set_aside(Path(logger.experiment.dir).parent, logger.experiment.id) else goes_on_at
        if isinstance(logger, MLFlowLogger):
            # RunInMLflow leaves out the values that its store has already.
            return 0
        return goes_on_at if isinstance(logger, TensorBoardLogger) else None


def _set_aside(current: Path, run_id: str) -> bool:
    """Moves the stopped parts of an offline W&B run into wandb/stopped, and says whether there were none but such.

    A process that is killed leaves its last 32 KiB, often all there is, unwritten, and `wandb sync` gives up at such a file. The part
    that goes on holds everything instead. Parts that a server has seen stay, and are added to.
    """
    # run-DATE_TIME-ID, or offline-run-DATE_TIME-ID.
    named = [part for part in current.parent.glob("*run-*-*") if part.name.removeprefix("offline-").split("-", 2)[2] == run_id]
    others = [part for part in named if part.is_dir() and not part.is_symlink() and part != current]
    if any(not part.name.startswith("offline-") or list(part.glob("*.synced")) for part in others):
        return False
    for part in others:
        (current.parent / "stopped").mkdir(exist_ok=True)
        part.rename(current.parent / "stopped" / part.name)
    return bool(others)
