"""Trainer overhead: a whole `unlearn fit` run against a bare PyTorch loop with the same batches, loss, optimizer, clipping and schedule."""

from __future__ import annotations

import tempfile
from itertools import pairwise
from pathlib import Path
from statistics import fmean
from typing import Any

import lightning.pytorch as pl
import torch
from torch.optim import AdamW

from scripts.benchmarks.measure import Result, seconds
from unlearn_lightning.cli import lightning_cli
from unlearn_lightning.data import MathStage, collate
from unlearn_lightning.data.batching import EpochPlan
from unlearn_lightning.inference.likelihood import token_log_likelihood
from unlearn_lightning.models.backbone import Backbone
from unlearn_lightning.models.scratch import Scratch
from unlearn_lightning.schedule import WarmupStableDecay

WARM_UP = 10
# The runs of a study have no progress bar, which takes about a millisecond a step.
QUIET = {"enable_progress_bar": False, "enable_model_summary": False}
# The smallest model anyone trains here is where a trainer costs most.
SIZES = {"tiny-llama's size (hidden 128, 4 layers), batch 32": (128, 4, 344, 4)}


class _Clock(pl.Callback):
    """Notes the time at which each step began."""

    def __init__(self) -> None:
        self.starts: list[float] = []

    def on_train_batch_start(self, *_: Any) -> None:
        self.starts.append(seconds())


def trained(size: tuple[int, int, int, int], steps: int, folder: str) -> list[float]:
    """`unlearn fit` as in a study (CSV logger, checkpoints, run records, no progress bar), with gradient clipping."""
    hidden, layers, intermediate, heads = size
    clock = _Clock()
    scratch = {"hidden": hidden, "layers": layers, "intermediate": intermediate, "heads": heads}
    init = {"backbone": {"scratch": scratch, "lora": None}, "optimizer": {"class_path": "torch.optim.AdamW", "init_args": {"lr": 1e-3}}}
    config = {
        "run_folder": folder, "seed_everything": 0,
        "model": {"class_path": "StageFineTuning", "init_args": init},
        "data": {"class_path": "MathStage", "init_args": {"batch_size": 32}},
        "trainer": {"accelerator": "cpu", "devices": 1, "max_epochs": -1, "max_steps": steps, "gradient_clip_val": 1.0, **QUIET},
    }  # fmt: skip
    lightning_cli.run({"subcommand": "fit", "fit": config}, callbacks=[clock])
    return clock.starts


def bare(size: tuple[int, int, int, int], steps: int) -> list[float]:
    """The same maths, nothing else: no logs, no checks, no checkpoints."""
    hidden, layers, intermediate, heads = size
    backbone = Backbone(scratch=Scratch(hidden=hidden, layers=layers, intermediate=intermediate, heads=heads), lora=None, seed=0)
    net, tokenizer, stage = backbone.load_for_fine_tuning(), backbone.load_tokenizer(), MathStage()
    examples = stage.encode(stage.examples("train"), tokenizer)
    plan = EpochPlan(tuple(map(len, examples)), 32, 32, 1)
    optimizer = AdamW(net.parameters(), lr=1e-3)
    scheduler = WarmupStableDecay(optimizer, steps)
    starts: list[float] = []
    epoch = 0
    while len(starts) < steps:
        for indices in plan.batches(0, epoch):
            if len(starts) == steps:
                break
            batch = collate([examples[i] for i in indices], tokenizer.pad_token_id)
            starts.append(seconds())
            optimizer.zero_grad()
            log_lik = token_log_likelihood(net, batch.input_ids, batch.attention_mask, batch.response_mask)
            (-log_lik.sum() / batch.batch_tokens).backward()
            torch.nn.utils.clip_grad_norm_(net.parameters(), 1.0)
            optimizer.step()
            scheduler.step()
        epoch += 1
    return starts


def _per_step(runs: list[list[float]]) -> float:
    """Mean over steps of each step's shortest time in some runs, which pass over the same batches."""
    durations = [[later - earlier for earlier, later in pairwise(starts)][WARM_UP:] for starts in runs]
    return fmean(map(min, *durations))


def overhead(steps: int = 60, repeats: int = 3) -> list[Result]:
    """Seconds per step from the tenth to the last, data loading and logging included; each step's shortest time in runs that take turns."""
    found = []
    for case, size in SIZES.items():
        ours, theirs = [], []
        for _ in range(repeats):
            with tempfile.TemporaryDirectory() as folder:
                ours.append(trained(size, steps, str(Path(folder) / "run")))
            theirs.append(bare(size, steps))
        a, b = _per_step(ours), _per_step(theirs)
        what, against = "trainer overhead", "a bare PyTorch loop doing the same maths"
        found.append(Result(what, against, case, "s per step", a, b, a / b - 1, 0.05, at_most=True))
    return found
