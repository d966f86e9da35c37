"""Optimizer steps on a real model, SmolLM2-135M-Instruct, against plain transformers and PEFT with a second model as reference."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from scripts.benchmarks.measure import Result, Work, compared, peak_bytes, timed
from scripts.benchmarks.setting import DEVICE
from scripts.benchmarks.steps import Trained, full, selected
from unlearn_lightning.data import Batch, SafetyStage, collate
from unlearn_lightning.models.adapters import reference_mode

MODEL = Path(__file__).parents[2] / "models" / "smollm2-135m-instruct"
ROWS, RANK = 16, 32


def load() -> Any:
    """The model in float32."""
    return AutoModelForCausalLM.from_pretrained(MODEL, dtype=torch.float32, attn_implementation="sdpa").to(DEVICE)


def requests() -> Batch:
    """A batch of the built-in requests with their refusals, in the model's chat template."""
    tokenizer = AutoTokenizer.from_pretrained(MODEL)
    stage = SafetyStage(source="world", train_examples=ROWS, max_length=192)
    examples = stage.encode(stage.examples("train"), tokenizer)[:ROWS]
    return collate(examples, tokenizer.pad_token_id or 0).to(DEVICE)


def smollm2(repeats: int = 2) -> list[Result]:
    """Batches of 16 requests, LoRA of rank 32 on all linear layers.

    Raises:
        SystemExit: the model's folder is not there.
    """
    if not (MODEL / "config.json").is_file():
        raise SystemExit(f"No model in {MODEL}: scripts/local_model makes it.")
    batch, ours, theirs = requests(), Trained(load, RANK), Trained(load, RANK)
    with reference_mode(ours.net):
        reference = selected(ours.net, batch)
    with torch.no_grad():
        plain = full(theirs.net, batch)
    torch.testing.assert_close(reference, plain, rtol=1e-4, atol=1e-3)
    extra = {
        "ours": peak_bytes(partial(ours.npo_adapter_off, batch)),
        "theirs": peak_bytes(partial(theirs.npo_second_model, batch)),
    }
    ways: dict[str, Work] = {
        "second model": partial(theirs.npo_second_model, batch),
        "adapter off": partial(ours.npo_adapter_off, batch),
        "cached": partial(ours.npo_cached, batch, reference),
        "ga, full logits": lambda: theirs.step(full(theirs.net, batch)),
        "ga": lambda: ours.step(selected(ours.net, batch)),
    }
    times = timed(ways, repeats)
    second, case = "transformers and PEFT, second model", f"SmolLM2-135M, {ROWS} requests"
    note = f"{batch.tokens} tokens, {batch.response_tokens} of them responses"
    return [
        compared("NPO step", second, case, times["adapter off"], times["second model"], 2.0, note=note),
        compared("NPO step, extra memory", second, case, extra["ours"], extra["theirs"], 1.0, quantity="bytes"),
        compared("NPO step with cached reference", second, case, times["cached"], times["second model"], 2.0),
        compared("GA step", "transformers and PEFT", case, times["ga"], times["ga, full logits"], 1.0),
    ]
