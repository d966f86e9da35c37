"""Fine-tuning on wrong responses: random tokens, other prompts' responses, or a refusal.

unlearn fit -c configs/objectives/random_labels.yaml -c configs/backbones/tiny-llama.yaml --model.backbone.model RUN/model
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Literal, overload

import numpy as np
import torch
from lightning.pytorch.utilities.rank_zero import rank_zero_warn
from torch import Tensor

from unlearn_lightning.data import Batch, Encoded
from unlearn_lightning.data.examples import lengths_of, longest
from unlearn_lightning.inference.likelihood import mean_token
from unlearn_lightning.modules import Unlearning


def random_tokens(batch: Batch, vocabulary: int, seed: int, epoch: int) -> Tensor:
    """The batch's tokens with its response tokens, but the last of each, replaced by uniformly drawn ones.

    What is drawn for a row follows from its content, the seed and the epoch alone: devices and micro-batches change nothing.

    Args:
        batch: B rows of T columns.
        vocabulary: how many tokens there are to draw from.
        seed: of the run.
        epoch: another epoch draws other tokens.

    Returns:
        (B, T) tokens. A response's last token, its end of turn, stays, so that responses still end.
    """
    tokens = batch.input_ids.clone()
    for row, identity in enumerate(batch.identities()):
        places = batch.response_mask[row].nonzero()[:-1, 0]
        drawn = np.random.default_rng([identity % 2**63, seed, epoch]).integers(vocabulary, size=len(places))
        tokens[row, places] = torch.from_numpy(drawn).to(tokens)
    return tokens


def one_cycle(count: int, seed: int) -> list[int]:
    """A random permutation of 0 to count - 1 that leaves nothing in its place: the numbers, shuffled, each followed by the next one.

    Args: count: at least 2.   seed: the same gives the same.
    """
    order = np.random.default_rng(seed).permutation(count)
    found = np.empty(count, dtype=np.int64)
    found[order] = np.roll(order, -1)
    return [int(number) for number in found]


class Permuted(Sequence[Encoded]):
    """Training examples with another one's response as their second; made when they are asked for, as the examples may lie in a file.

    Args:
        examples: at least 2.
        seed: of the permutation.
        max_length: tokens; a response for which its new prompt leaves less room is cut.
    """

    def __init__(self, examples: Sequence[Encoded], seed: int, max_length: int) -> None:
        self.examples, self.max_length = examples, max_length
        self.places = one_cycle(len(examples), seed)
        # As a stored file of tokens knows them (`lengths_of`, `longest`).
        self.lengths, self.longest = lengths_of(examples), longest(examples)

    def __len__(self) -> int:
        return len(self.examples)

    @overload
    def __getitem__(self, place: int) -> Encoded: ...
    @overload
    def __getitem__(self, place: slice) -> list[Encoded]: ...
    def __getitem__(self, place: int | slice) -> Encoded | list[Encoded]:
        """The example, with its second response."""
        if isinstance(place, slice):
            return [self[i] for i in range(*place.indices(len(self)))]
        own, other = self.examples[place], self.examples[self.places[place]]
        room = self.max_length - len(own.prompt_ids)
        second = Encoded(own.id, own.prompt_ids, other.response_ids[:room], truncated=len(other.response_ids) > room)
        return replace(own, alternative=second)


class RandomLabels(Unlearning):
    """Fine-tunes on wrong responses: the mean over examples of the negative log-likelihood per token of what takes the response's place.

    Three different things bear this name in the literature, and `labels` says which: `tokens` draws each response token uniformly from the
    vocabulary, anew in every epoch; `permuted` gives each prompt the response of another one, by a permutation of the training examples
    that is drawn once for the run, from the data's seed, and leaves none in its place; `alternative` takes each example's second response
    (`data.alternative_field`), which is rejection tuning where that is a refusal. Equal responses to several prompts stay right under a
    permutation, as often as they occur.

    Args:
        labels: what takes the response's place.
    """

    average = "examples"

    def __init__(self, *args: Any, labels: Literal["tokens", "permuted", "alternative"] = "tokens", **kwargs: Any) -> None:
        # No reference is asked for, so that `cache_reference` is no setting of this objective.
        super().__init__(*args, cache_reference=False, **kwargs)  # type: ignore[misc]
        self.labels = labels
        self.needs_alternative = labels != "tokens"  # type: ignore[misc]

    def setup(self, stage: str) -> None:
        """Also gives the examples their permuted responses, before batches are made of them.

        Raises:
            ValueError: there is one example only.
        """
        if stage == "fit" and self.labels == "permuted" and not isinstance(self._training_examples(), Permuted):
            data: Any = self.trainer.datamodule  # type: ignore[attr-defined]
            examples = self._training_examples()
            if len(examples) < 2:
                raise ValueError(
                    "RandomLabels permutes the responses of at least 2 examples, got 1: set labels to tokens, or add examples."
                )
            data.encoded["train"] = permuted = Permuted(examples, data.seed or 0, data.max_length)
            if cut := sum(one.alternative is not None and one.alternative.truncated for one in permuted):
                rank_zero_warn(f"{cut} of {len(permuted)} permuted responses were cut at max_length {data.max_length}.")
        super().setup(stage)

    def passed(self, batch: Batch) -> list[Batch]:
        """The wrong responses alone."""
        return [batch.alternative] if self.needs_alternative and batch.alternative is not None else [batch]

    def forget_loss(self, batch: Batch) -> Tensor:
        """(B,) nats per token."""
        if self.needs_alternative:
            assert batch.alternative is not None
            wrong = batch.alternative
        else:
            seed = self.trainer.datamodule.seed or 0  # type: ignore[attr-defined]
            wrong = Batch(**{**vars(batch), "input_ids": random_tokens(batch, len(self.tokenizer), seed, batch.epoch)})
        return -mean_token(self.token_log_likelihood(wrong), wrong.response_mask)
