"""Fine-tuning on wrong responses: random tokens, other prompts' responses, or a refusal.

unlearn fit -c configs/objectives/random_labels.yaml -c configs/backbones/tiny-llama.yaml --model.backbone.model RUN/model
"""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from unlearn_lightning.data import Batch
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


class RandomLabels(Unlearning):
    """Fine-tunes on wrong responses: the mean over examples of the negative log-likelihood per token of what takes the response's place.

    Three different things bear this name in the literature, and `labels` says which: `tokens` draws each response token uniformly from the
    vocabulary, anew in every epoch; `alternative` takes each example's second response (`data.alternative_field`), which is rejection
    tuning where that is a refusal, and permuted answers where that is another prompt's.

    Args:
        labels: what takes the response's place.
    """

    average = "examples"

    def __init__(self, *args: Any, labels: Literal["tokens", "alternative"] = "tokens", **kwargs: Any) -> None:
        # No reference is asked for, so that `cache_reference` is no setting of this objective.
        super().__init__(*args, cache_reference=False, **kwargs)  # type: ignore[misc]
        self.labels = labels
        self.needs_alternative = labels == "alternative"  # type: ignore[misc]

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
