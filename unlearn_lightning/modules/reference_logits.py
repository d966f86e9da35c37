"""Whole predictions of the starting model, for objectives that compare distributions: asked of it, or kept from before step 1.

With an adapter the starting model is the same net with the adapter off, and nothing is kept. Full fine-tuning moves the starting model
itself, so the predictions of all forget examples are computed once and kept on the CPU, if they fit.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from unlearn_lightning.data import Batch, Encoded, collate, identity

LIMIT = 2 * 2**30
TOO_LARGE = (
    "{objective} compares whole distributions with the starting model's. Full fine-tuning would have to keep {tokens:,} response tokens "
    "times {vocabulary:,} logits, {size:.1f} GiB; {limit:.0f} GiB at most are kept. Train an adapter (backbone.lora), which needs none."
)


def check_size(objective: str, examples: Sequence[Encoded], vocabulary: int) -> None:
    """Refuses what would not fit, before anything is computed.

    Raises:
        ValueError: the logits of all response tokens take more than `LIMIT` bytes.
    """
    tokens = sum(len(example.response_ids) for example in examples)
    if (size := tokens * vocabulary * 4) > LIMIT:
        raise ValueError(
            TOO_LARGE.format(objective=objective, tokens=tokens, vocabulary=vocabulary, size=size / 2**30, limit=LIMIT / 2**30)
        )


class KeptLogits:
    """The starting model's logits at the response tokens of all training examples, by what an example's row is.

    Args:
        rows: identity -> (n, V) float32 logits that predict the row's n response tokens.
    """

    def __init__(self, rows: dict[int, Tensor]) -> None:
        self.rows = rows

    @classmethod
    def of(cls, examples: Sequence[Encoded], at_once: int, pad_id: int, logits: Callable[[Batch], Tensor]) -> KeptLogits:
        """Computes them.

        Args:
            examples: the training examples.
            at_once: examples passed through the net together.
            pad_id: the padding token.
            logits: gives the (N, V) logits of a batch.
        """
        rows: dict[int, Tensor] = {}
        for first in range(0, len(examples), at_once):
            part = examples[first : first + at_once]
            found = logits(collate(part, pad_id)).float().cpu().split([len(example.response_ids) for example in part])
            rows |= {identity(example): values.clone() for example, values in zip(part, found, strict=True)}
        return cls(rows)

    def of_batch(self, batch: Batch) -> Tensor:
        """(N, V) the kept logits of a batch's response tokens, row by row, on the batch's device."""
        return torch.cat([self.rows[row] for row in batch.identities()]).to(batch.input_ids.device)

    def state(self) -> dict[str, Any]:
        """As tensors, for a checkpoint."""
        lengths = [len(values) for values in self.rows.values()]
        return {"rows": torch.tensor(list(self.rows)), "lengths": torch.tensor(lengths), "logits": torch.cat(list(self.rows.values()))}

    @classmethod
    def from_state(cls, state: dict[str, Any]) -> KeptLogits:
        """What `state` gave."""
        parts = state["logits"].split(state["lengths"].tolist())
        return cls(dict(zip(state["rows"].tolist(), parts, strict=True)))
