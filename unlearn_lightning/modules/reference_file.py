"""Reference log-likelihoods on disk, for all runs that start from the same model on the same data.

    file = ReferenceFile(Path("runs/.references/5b1c....safetensors"))
    values = file.load_or(compute, {identity(example) for example in examples})

Every value stands beside the identity of the row whose it is, so that other tokens under the same name are computed. The name holds a hash
of what decides the values, so that several epochs, learning rates or objectives compute them once. A file is whole or not there: it is
written beside and renamed. Runs that need it at the same time wait for the first, whose lock dies with it.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Callable, Set
from contextlib import nullcontext
from pathlib import Path

import torch
import torch.distributed
from lightning.pytorch.utilities.rank_zero import rank_zero_info
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from unlearn_lightning.records import locked
from unlearn_lightning.records.disk import writing

Values = dict[int, float]
IDENTITIES, NATS = "identities", "reference_log_lik"
# Where a file says the SHA-256 of its tensors.
DIGEST = "sha256"
UNCACHED = (
    "{objective} asks for the reference log-likelihood of {unknown} of {rows} responses that are not in the training data. With full "
    "fine-tuning the starting model is gone after step 1: return these examples from {objective}.further_reference_examples(), or train "
    "an adapter (backbone.lora)."
)


def as_tensors(values: Values) -> dict[str, Tensor]:
    """Row identities and nats, as files and checkpoints hold them: two (N,) tensors."""
    return {
        IDENTITIES: torch.tensor(list(values), dtype=torch.int64),
        NATS: torch.tensor(list(values.values()), dtype=torch.float32),
    }


def from_tensors(tensors: dict[str, Tensor]) -> Values:
    """The nats by row identity."""
    return dict(zip(tensors[IDENTITIES].tolist(), tensors[NATS].tolist(), strict=True))


class ReferenceFile:
    """The file of one model's log-likelihoods of one stage's training examples.

    Args:
        path: named by content.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def load_or(self, compute: Callable[[], Values], rows: Set[int], first: bool = True) -> Values:
        """The rows' values in the file; else they are computed and added to it. All processes of a run call this together.

        Args:
            compute: gives nats by row identity, for all rows; called by all processes or by none.
            rows: the identities that are wanted.
            first: whether this process is the one that reads the lock and writes.
        """
        with locked(self.path) if first else nullcontext():
            kept = self.read() if first else {}
            known = _shared({row: kept[row] for row in rows} if rows <= kept.keys() else None)
            if known is not None:
                rank_zero_info(f"Reference log-likelihoods: read from {self.path}.")
                return known
            if first:
                for left_over in self.path.parent.glob(f".{self.path.name}.*"):
                    left_over.unlink()
            values = compute()
            if first:
                self.write({**values, **kept})
        return values

    def read(self) -> Values:
        """The values by row identity; none where there is no such file, or a damaged one."""
        try:
            with safe_open(self.path, "pt") as file:
                digest = (file.metadata() or {}).get(DIGEST)
            tensors = load_file(self.path)
            if digest == _digest(tensors) and tensors[NATS].isfinite().all():
                return from_tensors(tensors)
        except FileNotFoundError:
            return {}
        except (OSError, SafetensorError, KeyError, ValueError, TypeError) as error:
            rank_zero_info(f"{self.path} cannot be read ({str(error).splitlines()[0][:100]}): the reference is computed again.")
            return {}
        rank_zero_info(f"{self.path} does not hold what was written into it: the reference is computed again.")
        return {}

    def write(self, values: Values) -> None:
        """Writes the file so that a reader, or a crash at any point, sees a whole file or none."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=self.path.parent, prefix=f".{self.path.name}.")
        os.close(handle)
        try:
            tensors = as_tensors(values)
            with writing(self.path):
                save_file(tensors, temporary, {DIGEST: _digest(tensors)})
            os.chmod(temporary, 0o644)
            os.replace(temporary, self.path)
        except BaseException:
            Path(temporary).unlink(missing_ok=True)
            raise


def _digest(tensors: dict[str, Tensor]) -> str:
    return hashlib.sha256(tensors[IDENTITIES].numpy().tobytes() + tensors[NATS].numpy().tobytes()).hexdigest()


def _shared(value: Values | None) -> Values | None:
    """The first process's value on every process."""
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        box = [value]
        torch.distributed.broadcast_object_list(box, src=0)
        return box[0]
    return value
