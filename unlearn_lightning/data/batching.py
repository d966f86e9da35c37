"""From encoded examples to micro-batches whose gradients add up to the same optimizer step on any number of devices.

    plan = EpochPlan(lengths, batch_size=32, micro_batch_size=8, world_size=2, bucket_batches=100)
    plan.micro_batches(seed=1, epoch=0, rank=0)      # [MicroBatch(indices=[...], ...), ...]

The order of examples depends on seed and epoch alone. A batch is the examples of one optimizer step over all devices; every
micro-batch knows how many examples and response tokens its whole batch has, and losses divide by those.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset, Sampler

from unlearn_lightning.data.examples import Encoded


@dataclass
class Batch:
    """The examples that one device computes at once, as B rows of T columns that are padded on the right.

    Attributes:
        input_ids, attention_mask: (B, T).
        response_mask: (B, T) bool, true at response tokens.
        example_index: (B,) the example's place in the stage's training data.
        real: (B,) bool; rows that only fill a device's share of the last batch are false and count for nothing.
        batch_tokens: response tokens of the whole batch (all devices and micro-batches).
        batch_examples: examples of the whole batch.
        tokens, response_tokens: real tokens of this micro-batch alone, and those of its responses; 0 where its rows count for nothing.
        epoch, position: which micro-batch of which epoch this is; dropout is seeded with it.
        alternative: the same examples, row by row, with their second responses; null where the data has none. Its counts are its own.
    """

    input_ids: Tensor
    attention_mask: Tensor
    response_mask: Tensor
    example_index: Tensor
    real: Tensor
    batch_tokens: int
    batch_examples: int
    tokens: int = 0
    response_tokens: int = 0
    epoch: int = 0
    position: int = 0
    alternative: Batch | None = None

    def to(self, device: torch.device | str, **kwargs: Any) -> Batch:
        """The same batch with its tensors on `device`."""
        moved: dict[str, Any] = {k: v.to(device, **kwargs) if isinstance(v, Tensor | Batch) else v for k, v in vars(self).items()}
        return Batch(**moved)

    def identities(self) -> list[int]:
        """Returns the identity of each row: a hash of its tokens and of which of them are the response's, whatever the padding around them.

        A log-likelihood depends on nothing else of a row, so that a value kept under it is never taken for another row's.
        """
        ids, seen, says = (
            tensor.cpu().numpy() for tensor in (self.input_ids.long(), self.attention_mask.bool(), self.response_mask.bool())
        )
        return [_identity(row[there], said[there]) for row, there, said in zip(ids, seen, says, strict=True)]


def identity(encoded: Encoded) -> int:
    """What an example's row in any batch is, as `Batch.identities` has it."""
    response = np.zeros(len(encoded), dtype=bool)
    response[len(encoded.prompt_ids) :] = True
    return _identity(np.array([*encoded.prompt_ids, *encoded.response_ids], dtype=np.int64), response)


def _identity(tokens: Any, response: Any) -> int:
    content = hashlib.blake2b(np.ascontiguousarray(tokens).tobytes(), digest_size=8)
    content.update(np.ascontiguousarray(response).tobytes())
    # Signed, because it is kept in an int64 tensor.
    return int.from_bytes(content.digest(), "little", signed=True)


def collate(encoded: Sequence[Encoded], pad_id: int, padding_side: str = "right") -> Batch:
    """Pads encoded examples into one batch that is a whole optimizer step by itself."""
    width = max(len(e) for e in encoded)
    input_ids = torch.full((len(encoded), width), pad_id)
    attention_mask = torch.zeros(len(encoded), width, dtype=torch.long)
    response_mask = torch.zeros(len(encoded), width, dtype=torch.bool)
    for row, e in enumerate(encoded):
        start = width - len(e) if padding_side == "left" else 0
        input_ids[row, start : start + len(e)] = torch.tensor([*e.prompt_ids, *e.response_ids])
        attention_mask[row, start : start + len(e)] = 1
        response_mask[row, start + len(e.prompt_ids) : start + len(e)] = True
    response_tokens = sum(len(e.response_ids) for e in encoded)
    seconds = second_responses(encoded)
    return Batch(
        input_ids, attention_mask, response_mask, torch.arange(len(encoded)), torch.ones(len(encoded), dtype=torch.bool),
        response_tokens, len(encoded), sum(map(len, encoded)), response_tokens,
        alternative=collate(seconds, pad_id, padding_side) if seconds else None,
    )  # fmt: skip


def second_responses(encoded: Sequence[Encoded]) -> list[Encoded]:
    """The examples with their second responses in place of the first; empty where not every example has one."""
    found = [e.alternative for e in encoded if e.alternative is not None]
    return found if len(found) == len(encoded) else []


@dataclass(frozen=True)
class MicroBatch:
    """Which examples one device takes at once, whether they count, and the whole batch's example indices."""

    indices: tuple[int, ...]
    real: bool
    batch: tuple[int, ...]
    epoch: int
    position: int


@dataclass(frozen=True)
class EpochPlan:
    """Splits each epoch into batches, and batches into micro-batches per device.

    Args:
        lengths: of all examples, in tokens.
        batch_size: examples per optimizer step over all devices.
        micro_batch_size: examples one device holds at once.
        world_size: number of devices.
        bucket_batches: batches are formed by length within windows of this many batches; 1 leaves the order random.
    """

    lengths: tuple[int, ...]
    batch_size: int
    micro_batch_size: int
    world_size: int
    bucket_batches: int = 100

    def __post_init__(self) -> None:
        share = self.micro_batch_size * self.world_size
        if min(self.batch_size, self.micro_batch_size, self.bucket_batches) < 1 or self.batch_size % share:
            raise ValueError(
                f"batch_size {self.batch_size} must be a multiple of micro_batch_size {self.micro_batch_size} x {self.world_size} "
                f"device(s) = {share}. Choose a micro_batch_size that divides {self.batch_size / self.world_size:g}."
            )

    @property
    def accumulation(self) -> int:
        """Micro-batches per device and optimizer step."""
        return self.batch_size // (self.micro_batch_size * self.world_size)

    def limited(self, limit: int | float) -> int | float:
        """`trainer.limit_train_batches` in batches, as everywhere: Lightning counts micro-batches, whose size must not matter.

        Raises:
            ValueError: it is less than one optimizer step.
        """
        if limit in (0, 1.0) and isinstance(limit, float):
            return limit
        per_epoch = math.ceil(len(self.lengths) / self.batch_size)
        steps = limit if isinstance(limit, int) else int(per_epoch * limit)
        if steps < 1 and limit:
            raise ValueError(f"trainer.limit_train_batches {limit} of {per_epoch} optimizer steps an epoch is less than one step.")
        return steps * self.accumulation

    def batches(self, seed: int, epoch: int) -> list[list[int]]:
        """The example indices of every optimizer step, similar lengths together, each batch sorted by length."""
        generator = torch.Generator().manual_seed(seed * 1_000_003 + epoch)
        order = torch.randperm(len(self.lengths), generator=generator).tolist()
        window = self.batch_size * self.bucket_batches
        found: list[list[int]] = []
        for start in range(0, len(order), window):
            part = order[start : start + window]
            if self.bucket_batches > 1:
                part.sort(key=self.lengths.__getitem__)
            found += [part[i : i + self.batch_size] for i in range(0, len(part), self.batch_size)]
        # The one batch that may be short stays last, as accumulation windows are counted from the epoch's start.
        full = [batch for batch in found if len(batch) == self.batch_size]
        short = [batch for batch in found if len(batch) < self.batch_size]
        return [full[i] for i in torch.randperm(len(full), generator=generator).tolist()] + short

    def micro_batches(self, seed: int, epoch: int, rank: int) -> list[MicroBatch]:
        """This device's micro-batches of the epoch, the same number on every device.

        Args:
            seed: the seed of the order.
            epoch: the number of the epoch, from 0.
            rank: the number of the device, from 0.
        """
        found: list[MicroBatch] = []
        for batch in self.batches(seed, epoch):
            share = self.micro_batch_size * self.world_size
            for i in range(math.ceil(len(batch) / share)):
                first = i * share + rank * self.micro_batch_size
                mine = batch[first : first + self.micro_batch_size]
                # A device without a share of the last batch still takes part in the step, with one row that counts for nothing.
                found.append(MicroBatch(tuple(mine or batch[:1]), bool(mine), tuple(batch), epoch, len(found)))
        return found


class BatchSource(Dataset[Batch]):
    """Makes the batch of a micro-batch; the DataLoader's "dataset", so that worker processes collate."""

    def __init__(self, encoded: Sequence[Encoded], pad_id: int) -> None:
        self.encoded = encoded
        self.pad_id = pad_id

    def __getitem__(self, micro_batch: MicroBatch) -> Batch:
        batch = collate([self.encoded[i] for i in micro_batch.indices], self.pad_id)
        whole = [self.encoded[i] for i in micro_batch.batch]
        self._place(batch, micro_batch, whole)
        if batch.alternative is not None:
            self._place(batch.alternative, micro_batch, second_responses(whole))
        return batch

    @staticmethod
    def _place(batch: Batch, micro_batch: MicroBatch, whole: Sequence[Encoded]) -> None:
        """Says where in the run a batch belongs, and what the examples of its whole optimizer step count."""
        batch.example_index = torch.tensor(micro_batch.indices)
        if not micro_batch.real:
            batch.real, batch.tokens, batch.response_tokens = torch.zeros_like(batch.real), 0, 0
        batch.batch_tokens, batch.batch_examples = sum(len(e.response_ids) for e in whole), len(whole)
        batch.epoch, batch.position = micro_batch.epoch, micro_batch.position


class EpochSampler(Sampler[MicroBatch]):
    """Yields this device's micro-batches of one epoch, from `start` on.

    Lightning calls `set_epoch` before every epoch. `start` applies to `epoch` only: it is where a resumed run goes on.
    """

    def __init__(self, plan: EpochPlan, seed: int, rank: int, epoch: int = 0, start: int = 0) -> None:
        self.plan, self.seed, self.rank, self.epoch, self.start = plan, seed, rank, epoch, start

    def set_epoch(self, epoch: int) -> None:
        """Moves to another epoch, from its beginning."""
        if epoch != self.epoch:
            self.epoch, self.start = epoch, 0

    def __iter__(self) -> Iterator[MicroBatch]:
        return iter(self.plan.micro_batches(self.seed, self.epoch, self.rank)[self.start :])

    def __len__(self) -> int:
        share = self.plan.micro_batch_size * self.plan.world_size
        full, rest = divmod(len(self.plan.lengths), self.plan.batch_size)
        return full * self.plan.accumulation + math.ceil(rest / share)
