"""How far an exported model is from the one that was trained, on examples that the run was trained on.

examples = run_examples(run, tokenizer)
before, after = predictions(stacked, examples), predictions(merged, examples)
print(difference(before, after, examples))
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch.cli import instantiate_class
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from unlearn_lightning.data import Encoded
from unlearn_lightning.models.merging import TEXT
from unlearn_lightning.runs.moved import read_config

# These are enough for a mean; with a vocabulary of 128,000 tokens their logits take 130 MB.
EXAMPLES, RESPONSE_TOKENS = 4, 64
# An export counts as the trained model where its token log-likelihoods differ by no more than this on average, in nats, by the dtype in
# which the run computed.
LIMITS = {"float32": 1e-3, "float16": 0.05, "bfloat16": 0.05}


@dataclass(frozen=True)
class Examples:
    """The examples on which an export is measured, and a sentence on where they come from."""

    encoded: Sequence[Encoded]
    origin: str


@dataclass(frozen=True)
class Difference:
    """The difference between two models' predictions of the same response tokens.

    Attributes:
        mean, largest: of the token log-likelihoods' absolute differences, nats.
        logits, spread: the logits' largest absolute difference, and their standard deviation.
        tokens, origin: how many tokens there were, and whose.
    """

    mean: float
    largest: float
    logits: float
    spread: float
    tokens: int
    origin: str

    def __str__(self) -> str:
        return (
            f"its token log-likelihoods differ from the trained model's by {self.mean:.2g} nats on average and {self.largest:.2g} at most, "
            f"its logits by {self.logits:.2g} at most at a spread of {self.spread:.2g}, on {self.tokens} response tokens of {self.origin}"
        )


def run_examples(run: Path, tokenizer: PreTrainedTokenizerBase) -> Examples:
    """The first training examples of a run, or a fixed text where its data cannot be read any more."""
    try:
        stage = instantiate_class((), read_config(run)["data"])
        found = stage.encode(stage.fitting("train", tokenizer, EXAMPLES), tokenizer)
        origin = f"{len(found)} of the run's examples"
    except (OSError, ValueError, ImportError, AttributeError) as error:
        tokens = tokenizer(TEXT, add_special_tokens=False)["input_ids"]
        found = [Encoded("text", tokens[:1], tokens[1:])]
        origin = f"a fixed text, as the run's data cannot be read ({str(error).splitlines()[0][:200]})"
    return Examples([Encoded(e.id, e.prompt_ids, e.response_ids[:RESPONSE_TOKENS]) for e in found], origin)


@torch.no_grad()
def predictions(net: Any, examples: Examples) -> Tensor:
    """(N, V) the logits that predict the examples' response tokens, float32."""
    rows = []
    for example in examples.encoded:
        tokens = torch.tensor([[*example.prompt_ids, *example.response_ids]], device=net.device)
        rows.append(net(input_ids=tokens, use_cache=False).logits[0, len(example.prompt_ids) - 1 : -1].float().cpu())
    return torch.cat(rows)


def difference(before: Tensor, after: Tensor, examples: Examples) -> Difference:
    """Measures the difference between two models' `predictions`."""
    chosen = torch.tensor([token for example in examples.encoded for token in example.response_ids])[:, None]
    moved = (after.log_softmax(-1).gather(1, chosen) - before.log_softmax(-1).gather(1, chosen)).abs()
    return Difference(
        moved.mean().item(), moved.max().item(), (after - before).abs().max().item(), before.std().item(), len(chosen), examples.origin
    )
