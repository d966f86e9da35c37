"""The demo study against the same runs done the usual way: every path trained from the base by itself, and plain forward passes.

Each distinct run of the tree is executed once either way, one after another. Without sharing, a stage's run would be repeated for each of
the five paths that begin with it, so its seconds count so often. The base model is trained already, as one that is downloaded is.
The demo's batches are random by choice, so bucketing adds nothing here.
"""

from __future__ import annotations

import contextlib
import io
import tempfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any
from unittest import mock

import torch
import yaml
from torch import Tensor
from transformers import GenerationConfig

from scripts.benchmarks.measure import Result, compared, seconds
from unlearn_lightning.cli import lightning_cli
from unlearn_lightning.cli.resolver import Resolver
from unlearn_lightning.inference import generation, likelihood, multiple_choice
from unlearn_lightning.inference.generation import end_tokens
from unlearn_lightning.inference.multiple_choice import CandidateScores
from unlearn_lightning.study.run import Run
from unlearn_lightning.study.study_config import StudyConfig
from unlearn_lightning.study.tree import plan

DEMO = Path(__file__).parents[2] / "configs" / "studies" / "demo.yaml"


def demo(scale: float) -> StudyConfig:
    """The demo with a share of its stages' steps; unlearning and probes are whole."""
    settings = yaml.safe_load(DEMO.read_text())
    for name, stage in settings["stages"].items():
        if name != settings["forget"]:
            init = stage["data"]["init_args"]
            init["train_examples"] = round(init["train_examples"] * scale)
    return StudyConfig(**settings)


def study(scale: float = 1.0) -> list[Result]:
    """One seed; the two ways at once, in a process of one thread each."""
    config = demo(scale)
    with ProcessPoolExecutor(2, get_context("spawn"), initializer=torch.set_num_threads, initargs=(1,)) as pool:
        ours, theirs = pool.map(_executed, [config, config], [False, True])
    paths = [*(path.stages for path in config.all_paths()), *config.retrained_paths()]
    repeated = sum(time * (sum(path[: len(stages)] == stages for path in paths) if stages else 1) for (_, stages), time in theirs.items())
    total = sum(ours.values())
    note = f"{len(ours)} runs; plain ways with sharing take {sum(theirs.values()):.4g} s"
    case = f"seed 1, {scale:g} of its stage steps"
    against = "the same runs without sharing, bucketing, selected logits"
    return [compared("whole demo study", against, case, total, repeated, 1.8, note=note)]


def _executed(config: StudyConfig, plainly: bool) -> dict[tuple[str, tuple[str, ...]], float]:
    """(run's name, path) -> seconds of `unlearn fit`, setting up and saving included."""
    silence, found = io.StringIO(), {}
    with tempfile.TemporaryDirectory() as store, plain_ways() if plainly else contextlib.nullcontext():
        for run in plan(config, Path(store), Resolver().resolve):
            started = seconds()
            with contextlib.redirect_stdout(silence), contextlib.redirect_stderr(silence):
                lightning_cli.run({"subcommand": "fit", "fit": run.config}, resolved=run.config)
            found[run.name, _stages(run)] = seconds() - started
    return found


def _stages(run: Run) -> tuple[str, ...]:
    return tuple(run.tags.get("path") or ()) if run.kind == "stage" else ()


# --- the plain ways ----------------------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def plain_ways() -> Iterator[None]:
    """All logits, one row for each prompt and phrase, and transformers' own `generate`."""
    with (
        mock.patch.object(likelihood, "token_log_likelihood", full_logits),
        mock.patch.object(multiple_choice, "score_candidates", pair_by_pair),
        mock.patch.object(generation, "generate", padded_generate),
    ):
        yield


def full_logits(net: Any, input_ids: Tensor, attention_mask: Tensor, response_mask: Tensor, *_: Any) -> Tensor:
    """(B, T) from the logits at every place."""
    logits = net(input_ids=input_ids, attention_mask=attention_mask, use_cache=False).logits[:, :-1].float()
    chosen = -torch.nn.functional.cross_entropy(logits.flatten(0, 1), input_ids[:, 1:].flatten(), reduction="none")
    return torch.nn.functional.pad(chosen.view(len(input_ids), -1), (1, 0)) * response_mask


def pair_by_pair(net: Any, prompts: Sequence[Sequence[int]], candidates: Sequence[Sequence[int]]) -> CandidateScores:
    """One padded row for each candidate, prompt by prompt, logits everywhere."""
    width = max(map(len, candidates))
    mask = torch.arange(width) < torch.tensor([len(c) for c in candidates])[:, None]
    values, margins = [], []
    for prompt in prompts:
        ids = torch.tensor([[*prompt, *c, *[0] * (width - len(c))] for c in candidates])
        seen = torch.cat([torch.ones(len(candidates), len(prompt), dtype=torch.long), mask.long()], dim=1)
        logits = net(input_ids=ids, attention_mask=seen).logits.float()[:, len(prompt) - 1 : -1]
        token = ids[:, len(prompt) :, None]
        values.append(logits.log_softmax(-1).gather(-1, token).squeeze(-1).masked_fill(~mask, 0.0))
        others = logits.scatter(-1, token, -torch.inf).amax(-1)
        margins.append((logits.gather(-1, token).squeeze(-1) - others).masked_fill(~mask, 0.0))
    return CandidateScores(torch.stack(values), torch.stack(margins), mask)


def padded_generate(net: Any, tokenizer: Any, prompts: Sequence[Sequence[int]], max_new_tokens: int, *_: Any, **__: Any) -> list[list[str]]:
    """Greedy, one batch padded on the left that ends when its last row has ended."""
    width = max(map(len, prompts))
    ids = torch.tensor([[tokenizer.pad_token_id] * (width - len(p)) + list(p) for p in prompts])
    mask = torch.tensor([[0] * (width - len(p)) + [1] * len(p) for p in prompts])
    how = GenerationConfig(max_new_tokens=max_new_tokens, eos_token_id=end_tokens(net, tokenizer), pad_token_id=tokenizer.pad_token_id)
    output = net.generate(input_ids=ids, attention_mask=mask, generation_config=how)
    return [[text] for text in tokenizer.batch_decode(output[:, width:], skip_special_tokens=True)]
