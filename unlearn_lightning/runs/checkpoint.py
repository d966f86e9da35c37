"""When a run's checkpoint is written, and how, so that it is always a whole one. What is in it and who reads it: resume.py.

trainer = Trainer(callbacks=[ResumeCheckpoint(run_folder, every_n_steps=100)], plugins=[WholeFileIO()])
last_checkpoint(run_folder)         # RUN/checkpoints/last.ckpt
"""

from __future__ import annotations

import os
import shutil
import struct
import zipfile
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.fabric.plugins import TorchCheckpointIO
from lightning.pytorch.callbacks import ModelCheckpoint

from unlearn_lightning.preemption import ASKED_TO_STOP, Stopped, check, held, was_asked
from unlearn_lightning.records.disk import writing


def last_checkpoint(folder: Path) -> Path:
    """Where the checkpoint of a run folder lies while the run is unfinished."""
    return folder / "checkpoints" / "last.ckpt"


def check_undamaged(checkpoint: Path) -> None:
    """Compares every part of a checkpoint with the checksum that stands beside it in the file; torch reads none of them.

    Raises:
        ValueError: a part is damaged, or the file is cut.
    """
    try:
        with zipfile.ZipFile(checkpoint) as file:
            damaged = file.testzip()
    except (zipfile.BadZipFile, EOFError, ValueError, NotImplementedError, RuntimeError, UnicodeDecodeError, struct.error) as error:
        damaged = str(error) or type(error).__name__
    if damaged is not None:
        raise ValueError(
            f"The checkpoint {checkpoint} is damaged ({damaged}): it was cut or overwritten after it was written. Put it back, or delete "
            "it to train this run from its beginning."
        )


def delete_checkpoints(folder: Path) -> None:
    """Deletes the checkpoints of a run folder; a finished run goes on from none."""
    shutil.rmtree(last_checkpoint(folder).parent, ignore_errors=True)


class ResumeCheckpoint(ModelCheckpoint):
    """Writes `checkpoints/last.ckpt` every n optimizer steps, and when the process is asked to stop.

    It never writes one after the last step, because a run that resumes with no step left would skip `on_train_end`, where the last
    measurements are made.

    A process that is asked to stop (preemption.py) saves at the end of its optimizer step, or between two chunks of a measurement that
    is made there, and ends; several processes of one run all save and end at the end of the step. What was not measured is measured when
    the run goes on. Before the first step there is nothing to save, and a process ends at once.

    Args:
        folder: the run folder.
        every_n_steps: optimizer steps between checkpoints.
    """

    def __init__(self, folder: Path, every_n_steps: int) -> None:
        super().__init__(
            dirpath=last_checkpoint(folder).parent, filename=last_checkpoint(folder).stem, every_n_train_steps=every_n_steps, save_top_k=1,
            save_on_train_epoch_end=False, enable_version_counter=False,
        )  # fmt: skip
        self._path = last_checkpoint(folder)
        self._total_steps, self._step = 0, 0
        self._holding, self._holds = ExitStack(), False

    def on_train_start(self, trainer: pl.Trainer, pl_module: Any) -> None:
        """Looks up how many optimizer steps the run has, because the last one needs no checkpoint."""
        super().on_train_start(trainer, pl_module)
        self._total_steps, self._step = trainer.datamodule.total_steps(), trainer.global_step  # type: ignore[attr-defined]

    def on_train_batch_start(self, *args: Any, **kwargs: Any) -> None:
        """Holds requests to stop from the first micro-batch of an optimizer step until its end."""
        super().on_train_batch_start(*args, **kwargs)
        if not self._holds:
            self._holding.enter_context(held())
            self._holds = True

    def on_train_batch_end(self, trainer: pl.Trainer, *args: Any, **kwargs: Any) -> None:
        """Writes a checkpoint where one is due, and ends the process here if it was asked to stop."""
        if trainer.global_step >= self._total_steps:
            return
        super().on_train_batch_end(trainer, *args, **kwargs)
        # In the middle of an optimizer step the gathered gradients would be lost.
        stepped, self._step = trainer.global_step != self._step, trainer.global_step
        if stepped and trainer.strategy.reduce_boolean_decision(was_asked(), all=False):
            trainer.save_checkpoint(self._path)
            check()
            raise Stopped(ASKED_TO_STOP)  # Another process was asked to stop, and this one ends with it.

    def on_exception(self, trainer: pl.Trainer, pl_module: Any, exception: BaseException) -> None:
        """Saves a step that was stopped while it was measured."""
        super().on_exception(trainer, pl_module, exception)
        behind_a_step = self._step < trainer.global_step < self._total_steps
        if self._holds and isinstance(exception, Stopped) and behind_a_step and trainer.world_size == 1:
            trainer.save_checkpoint(self._path)
        self._holding.close()

    def teardown(self, trainer: pl.Trainer, pl_module: Any, stage: str) -> None:
        """Lets requests to stop through again, also after an error."""
        super().teardown(trainer, pl_module, stage)
        self._holding.close()


class WholeFileIO(TorchCheckpointIO):
    """Writes a checkpoint beside its place and then renames it, so that a crash at any point leaves the old one or the new one.

    Lightning writes it to the temporary folder and moves it, which is a copy where that is another file system than the run folder's:
    a process that is killed in the middle leaves half a checkpoint. Whatever it is asked, it never unpickles a checkpoint.
    """

    def load_checkpoint(self, path: Any, map_location: Any = "cpu", weights_only: bool | None = None) -> dict[str, Any]:
        """Reads tensors and plain values only, also where Lightning does not pass `weights_only` on, as under FSDP2.

        Raises:
            pickle.UnpicklingError: the checkpoint holds anything else.
        """
        return super().load_checkpoint(path, map_location, weights_only=True)

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any | None = None) -> None:
        """Saves a checkpoint.

        Raises:
            OSError: the disk is full, or the folder cannot be written; the former checkpoint is as it was.
        """
        final = Path(path)
        part = final.with_name(f"{final.name}.part")
        final.parent.mkdir(parents=True, exist_ok=True)
        try:
            with writing(final), part.open("wb") as file:
                torch.save(checkpoint, file)
                file.flush()
                os.fsync(file.fileno())
            os.replace(part, final)
        except (OSError, RuntimeError) as error:
            part.unlink(missing_ok=True)
            raise OSError(f"The checkpoint {final} could not be written ({error}). The former one, if any, is as it was.") from error
