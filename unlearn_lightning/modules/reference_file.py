"""Reference log-likelihoods on disk, for all runs that start from the same model on the same data.

    file = ReferenceFile(Path("runs/.references/5b1c....safetensors"))
    values = file.load_or(compute, count=512)

The name holds a hash of what decides the values, so that several epochs, learning rates or objectives compute them once. A file is whole
or not there: it is written beside and renamed. Runs that need it at the same time wait for the first, whose lock dies with it.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path

import torch.distributed
from lightning.pytorch.utilities.rank_zero import rank_zero_info
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from unlearn_lightning.locks import locked

NAME = "reference_log_lik"


class ReferenceFile:
    """The file of one model's log-likelihoods of one stage's training examples.

    Args:
        path: named by content.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def load_or(self, compute: Callable[[], Tensor], count: int, first: bool = True) -> Tensor:
        """The values in the file; else they are computed and written. All processes of a run call this together.

        Args:
            compute: gives the values, (count,) in nats; called by all processes or by none.
            count: number of examples.
            first: whether this process is the one that reads the lock and writes.
        """
        with locked(self.path) if first else nullcontext():
            known = _shared(self.read(count) if first else None)
            if known is not None:
                rank_zero_info(f"Reference log-likelihoods: read from {self.path}.")
                return known
            if first:
                for left_over in self.path.parent.glob(f".{self.path.name}.*"):
                    left_over.unlink()
            values = compute()
            if first:
                self.write(values)
        return values

    def read(self, count: int) -> Tensor | None:
        """The (count,) values; None where there is no such file, or a damaged one."""
        try:
            values = load_file(self.path).get(NAME)
        except (FileNotFoundError, SafetensorError):
            return None
        return values if values is not None and values.shape == (count,) and values.isfinite().all() else None

    def write(self, values: Tensor) -> None:
        """Writes the file so that a reader, or a crash at any point, sees a whole file or none."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=self.path.parent, prefix=f".{self.path.name}.")
        os.close(handle)
        try:
            save_file({NAME: values.contiguous()}, temporary)
            os.chmod(temporary, 0o644)
            os.replace(temporary, self.path)
        except BaseException:
            Path(temporary).unlink(missing_ok=True)
            raise


def _shared(value: Tensor | None) -> Tensor | None:
    """The first process's value on every process."""
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        box = [value]
        torch.distributed.broadcast_object_list(box, src=0)
        return box[0]
    return value
