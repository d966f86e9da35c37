"""Optimizer steps of NPO and gradient ascent against the usual way: full logits, and for NPO a second model as the reference."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from peft import LoraConfig, get_peft_model
from torch import Tensor
from torch.optim import AdamW

from scripts.benchmarks.measure import Result, Work, compared, peak_bytes, timed
from scripts.benchmarks.setting import DEVICE, HEADER, VOCABULARIES, batches, encoded, llama, paper_like
from unlearn_lightning.data import Batch, SafetyStage, collate
from unlearn_lightning.inference.likelihood import token_log_likelihood
from unlearn_lightning.inference.prefix_sharing import take_shortcuts
from unlearn_lightning.models.adapters import reference_mode
from unlearn_lightning.objectives.npo import npo_loss

ROWS = 8
TARGETS = {
    "npo": {"32k": 1.7, "128k": 3.1},
    "memory": {"32k": 1.8, "128k": 2.7},
    "cached": {"32k": 2.5, "128k": 4.0},
    "ga": {"32k": 1.4, "128k": 2.3},
}
LogLik = Callable[[Any, Batch], Tensor]


def selected(net: Any, batch: Batch) -> Tensor:
    """(B,) ours: the vocabulary where a response token is predicted, no mask where padding is on the right, what is shared once."""
    return token_log_likelihood(net, batch.input_ids, batch.attention_mask, batch.response_mask).sum(-1)


def full(net: Any, batch: Batch) -> Tensor:
    """(B,) the usual way: all logits, cross-entropy at all places, then the mask."""
    logits = net(input_ids=batch.input_ids, attention_mask=batch.attention_mask).logits[:, :-1].float()
    loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), batch.input_ids[:, 1:].flatten(), reduction="none")
    return -(loss.view(len(batch.input_ids), -1) * batch.response_mask[:, 1:]).sum(-1)


def with_adapter(model: Any, rank: int = 16) -> Any:
    """The model with a fresh trainable adapter on all linear layers but the head, in training mode."""
    return get_peft_model(model, LoraConfig(r=rank, lora_alpha=2 * rank, target_modules="all-linear", task_type="CAUSAL_LM")).train()


class Trained:
    """A model under training; every way of a step has one of its own, from the same weights. `load` makes a fresh one."""

    def __init__(self, load: Callable[[], Any], rank: int = 16) -> None:
        self.load = load
        self.net = with_adapter(load(), rank)
        self.optimizer = AdamW([p for p in self.net.parameters() if p.requires_grad], lr=1e-4)
        self.reference: Any = None

    def step(self, loss: Tensor) -> None:
        """One optimizer step."""
        self.optimizer.zero_grad()
        loss.mean().backward()
        self.optimizer.step()

    def npo_second_model(self, batch: Batch) -> None:
        """The alternative: a frozen copy of the starting model, and all logits of both."""
        if self.reference is None:
            self.reference = self.load().eval().requires_grad_(False)
        with torch.no_grad():
            reference = full(self.reference, batch)
        self.step(npo_loss(full(self.net, batch), reference, 0.5))

    def npo_adapter_off(self, batch: Batch) -> None:
        """Ours: the reference is the same net with its adapter off."""
        with reference_mode(self.net):
            reference = selected(self.net, batch)
        self.step(npo_loss(selected(self.net, batch), reference, 0.5))

    def with_whole_passes(self, work: Work) -> None:
        """Does the work without shortcuts."""
        take_shortcuts(self.net, False)
        work()
        take_shortcuts(self.net, True)

    def npo_cached(self, batch: Batch, reference: Tensor) -> None:
        """Ours, where the reference's log-likelihoods are known."""
        self.step(npo_loss(selected(self.net, batch), reference, 0.5))


def steps(repeats: int = 3) -> list[Result]:
    """Batches of 8 forget examples, LoRA of rank 16 on all linear layers.

    What is saved depends on the share of response tokens, and on how many tokens all prompts begin with.
    """
    shapes = {
        f"{prompt} + {response} tokens, {header or 'nothing'} shared": collate(paper_like(ROWS, prompt, response, header), 0).to(DEVICE)
        for prompt, response, header in [(96, 32, HEADER), (112, 16, HEADER), (96, 32, 0), (112, 16, 0)]
    } | {
        "the world's safety stage": batches(encoded(SafetyStage()), ROWS, 1)[0],
    }
    found = []
    for (name, size), (lengths, batch) in itertools.product(VOCABULARIES.items(), shapes.items()):
        targets = {what: bounds[name] if lengths[0].isdigit() else None for what, bounds in TARGETS.items()}
        shape = f"{batch.tokens} tokens, {batch.response_tokens} of them responses"
        ours, theirs = Trained(partial(llama, size)), Trained(partial(llama, size))
        with reference_mode(ours.net):
            reference = selected(ours.net, batch)
        # Extra memory is all beyond the trained model's own weights: the copy, its logits, activations, gradients, optimizer state.
        extra = {
            "ours": peak_bytes(lambda: ours.npo_adapter_off(batch)),
            "theirs": peak_bytes(lambda: theirs.npo_second_model(batch)),
        }
        ways: dict[str, Work] = {
            "second model": lambda: theirs.npo_second_model(batch),
            "adapter off": lambda: ours.npo_adapter_off(batch),
            "cached": lambda: ours.npo_cached(batch, reference),
            "adapter off, whole passes": lambda: ours.with_whole_passes(lambda: ours.npo_adapter_off(batch)),
            "cached, whole passes": lambda: ours.with_whole_passes(lambda: ours.npo_cached(batch, reference)),
            "ga, full logits": lambda: theirs.step(full(theirs.net, batch)),
            "ga": lambda: ours.step(selected(ours.net, batch)),
        }
        times, case = timed(ways, repeats), f"vocabulary {name}, {lengths}"
        slow, second = times["second model"], "second model copy + full logits"
        whole = {name: slow / times[f"{name}, whole passes"] for name in ("adapter off", "cached")}
        note = f"{shape}; without shortcuts {whole['adapter off']:.2f}x, and {whole['cached']:.2f}x with a cached reference"
        found += [
            compared("NPO step", second, case, times["adapter off"], slow, targets["npo"], note=note),
            compared("NPO step, extra memory", second, case, extra["ours"], extra["theirs"], targets["memory"], quantity="bytes"),
            compared("NPO step with cached reference", second, case, times["cached"], slow, targets["cached"]),
            compared("GA step", "full logits", case, times["ga"], times["ga, full logits"], targets["ga"]),
        ]
    return found
