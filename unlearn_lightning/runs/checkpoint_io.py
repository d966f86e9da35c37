"""Checkpoints that are whole or not there, wherever the run folder lies."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import torch
from lightning.fabric.plugins import TorchCheckpointIO


class WholeFileIO(TorchCheckpointIO):
    """Writes a checkpoint beside its place and then renames it, so that a crash at any point leaves the old one or the new one.

    Lightning writes it to the temporary folder and moves it, which is a copy where that is another file system than the run folder's:
    a process that is killed in the middle leaves half a checkpoint.
    """

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any | None = None) -> None:
        """Saves a checkpoint.

        Raises:
            OSError: the disk is full, or the folder cannot be written; the former checkpoint is as it was.
        """
        final = Path(path)
        part = final.with_name(f"{final.name}.part")
        final.parent.mkdir(parents=True, exist_ok=True)
        try:
            with part.open("wb") as file:
                torch.save(checkpoint, file)
                file.flush()
                os.fsync(file.fileno())
            os.replace(part, final)
        except (OSError, RuntimeError) as error:
            part.unlink(missing_ok=True)
            raise OSError(f"The checkpoint {final} could not be written ({error}). The former one, if any, is as it was.") from error
