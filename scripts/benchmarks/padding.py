"""Padded tokens per real token when batches are formed by length, and when they are random."""

from __future__ import annotations

import os
from collections.abc import Sequence

from scripts.benchmarks.measure import Result
from scripts.benchmarks.setting import encoded
from unlearn_lightning.data import Encoded, EpochPlan, MathStage, TofuStage
from unlearn_lightning.models.backbone import Backbone
from unlearn_lightning.models.scratch import Scratch
from unlearn_lightning.sources.readers import data_root


def padded_per_token(examples: Sequence[Encoded], bucket_batches: int, batch_size: int = 32) -> float:
    """Counts padded tokens per real token over one epoch."""
    lengths = tuple(map(len, examples))
    plan = EpochPlan(lengths, batch_size, batch_size, 1, bucket_batches)
    found = plan.batches(seed=0, epoch=0)
    return sum(max(lengths[i] for i in batch) * len(batch) for batch in found) / sum(lengths)


def mixed() -> tuple[str, list[Encoded]]:
    """TOFU and GSM8K in one: the real sets below UNLEARN_DATA with a tokenizer of 8,192 trained on them, else the built-in ones."""
    if not os.environ.get("UNLEARN_DATA"):
        return "built-in TOFU + GSM8K", [*encoded(TofuStage()), *encoded(MathStage())]
    stages = [TofuStage(source="files", held_out_examples=0), MathStage(source="files")]
    files = tuple(str(data_root(None) / stage.train_file) for stage in stages if stage.train_file)
    tokenizer = Backbone(scratch=Scratch(vocab_size=8192, corpus=files)).load_tokenizer()
    return "TOFU + GSM8K", [e for stage in stages for e in stage.encode(stage.examples("train"), tokenizer)]


def padding() -> list[Result]:
    """One epoch at batch 32, in windows of 100 batches (the default of bucket_batches) and in random order."""
    case, examples = mixed()
    ours, random = padded_per_token(examples, 100), padded_per_token(examples, 1)
    quantity = "padded tokens per real token"
    return [Result("padding", "random batches", f"{case}, batch 32", quantity, ours, random, ours, 1.04, at_most=True)]
