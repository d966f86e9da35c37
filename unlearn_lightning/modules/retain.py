"""A retain term for any unlearning objective: its batches come from another stage's data, beside the forget set's.

model:
  class_path: NPO
  init_args: {beta: 0.5, retain: {data: {class_path: TofuStage, init_args: {batch_size: 32}}, loss: cross_entropy, weight: 1.0}}

Which retain examples a step sees follows from seed, epoch and batch alone, as with the forget set: a resumed run draws what it would have
drawn, and how many devices or micro-batches share the step does not matter.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from lightning.pytorch.utilities.rank_zero import rank_zero_info
from torch import Tensor

from unlearn_lightning.data import Batch, Encoded, EpochPlan, StageData, collate
from unlearn_lightning.data.examples import lengths_of


@dataclass(frozen=True)
class RetainTerm:
    """What is kept while something else is forgotten.

    Args:
        data: the stage to be retained. Its batch_size is the number of retain examples per optimizer step, over all devices; its
            micro_batch_size is not used, as the retain batch is shared out like the forget batch.
        loss: cross_entropy (GradDiff's, Maini et al. 2024, arXiv:2401.06121: mean negative log-likelihood per response token) or kl
            (mean KL divergence per response token from the frozen starting model to the trained one; needs an adapter). Some objectives
            have one of their own: activations (RMU), or subspace (PGU), which adds no loss.
        weight: of the retain loss, the forget loss having 1.
    """

    data: StageData
    loss: Literal["cross_entropy", "kl", "activations", "subspace"] = "cross_entropy"
    weight: float = 1.0

    def __post_init__(self) -> None:
        if not (math.isfinite(self.weight) and self.weight > 0):
            raise ValueError(f"retain.weight must be above 0, got {self.weight}. For a local objective leave `retain` out.")


def token_kl(reference_logits: Tensor, logits: Tensor) -> Tensor:
    """KL(reference || model) of each next-token distribution.   Args: (..., V).   Returns: (...) nats, at least 0."""
    reference, model = reference_logits.float().log_softmax(-1), logits.float().log_softmax(-1)
    return (reference.exp() * (reference - model)).sum(-1)


class RetainBatches:
    """The retain examples that belong to each micro-batch of the forget set.

    The optimizer steps of a run take the retain batches one after the other, through as many passes over the retain data as that needs.

    Args:
        encoded: the retain examples.
        data: whose batch_size, bucket_batches and seed say how they are batched.
        pad_id: the padding token.
    """

    def __init__(self, encoded: Sequence[Encoded], data: StageData, pad_id: int) -> None:
        self.encoded, self.seed, self.pad_id = encoded, data.seed or 0, pad_id
        self.plan = EpochPlan(lengths_of(encoded), data.batch_size, data.batch_size, 1, data.bucket_batches)
        self.per_pass = math.ceil(len(encoded) / data.batch_size)

    def of_step(self, step: int) -> list[int]:
        """The retain examples of an optimizer step, counted from 0 over all epochs."""
        passes, number = divmod(step, self.per_pass)
        return self.plan.batches(self.seed, passes)[number]

    def examples_of_run(self, forget: EpochPlan, steps: int, per_epoch: int) -> list[Encoded]:
        """The retain examples that a run sees, each once.

        Args: forget: how the forget set is batched.   steps: of the run.   per_epoch: steps that it takes of each epoch.
        """
        full = math.ceil(len(forget.lengths) / forget.batch_size)
        seen = {i for step in range(steps) for i in self.of_step(step // per_epoch * full + step % per_epoch)}
        return [self.encoded[i] for i in sorted(seen)]

    def beside(self, batch: Batch, forget: EpochPlan, rank: int) -> Batch:
        """This device's share of the retain batch beside a forget micro-batch.

        Where there are more shares than examples it is one row that counts for nothing, so that all devices go the same way.

        Args: batch: of the forget set.   forget: how that is batched.   rank: of this device.
        """
        steps = math.ceil(len(forget.lengths) / forget.batch_size)
        number, turn = divmod(batch.position, forget.accumulation)
        indices = self.of_step(batch.epoch * steps + number)
        # An epoch's last batch may be short, and then has fewer micro-batches to share the retain batch.
        turns = math.ceil(batch.batch_examples / (forget.micro_batch_size * forget.world_size))
        mine = indices[turn * forget.world_size + rank :: turns * forget.world_size]
        found = collate([self.encoded[i] for i in mine or indices[:1]], self.pad_id)
        if not mine:
            found.real = torch.zeros_like(found.real)
            found.tokens = found.response_tokens = 0
        found.batch_tokens = sum(len(self.encoded[i].response_ids) for i in indices)
        found.batch_examples = len(indices)
        return found


def check_apart(unlearned: Sequence[Encoded], retained: Sequence[Encoded]) -> None:
    """Says in a line what the forget set and the retain data have in common.

    Args: unlearned, retained: as tokens.

    Raises:
        ValueError: most of what is unlearned is retained, so that a step would forget and keep the same.
    """
    forget = Counter((tuple(one.prompt_ids), tuple(one.response_ids)) for one in unlearned)
    prompts = {prompt for prompt, _ in forget if prompt}
    pairs, other = set(), set()
    for one in retained:
        pair = tuple(one.prompt_ids), tuple(one.response_ids)
        if pair in forget:
            pairs.add(pair)
        elif pair[0] in prompts:
            other.add(pair[0])
    both = sum(forget[pair] for pair in pairs)
    told = f"{both:,} of the {len(unlearned):,} examples that are unlearned are retained, too"
    if 2 * both > len(unlearned):
        raise ValueError(f"{told}, so that a step would forget and keep the same. Name other data in model.retain.data.source.")
    if both:
        rank_zero_info(f"{told}.")
    if other:
        rank_zero_info(f"{len(other):,} prompts are unlearned with one response and retained with another.")


def tell_measured_and_retained(unlearned: StageData, retained: StageData) -> None:
    """Says how many prompts are held out to be measured, and retained meanwhile."""
    if not unlearned.held_out_examples:
        return
    try:
        held_out = list(unlearned.prompt_digests("held_out"))
    except (OSError, ValueError):
        # A run that measures nothing on them does not need them, and one that does says so.
        return
    kept = set(retained.prompt_digests("train"))
    if both := sum(prompt in kept for prompt in held_out):
        rank_zero_info(
            f"{both:,} of {len(held_out):,} held-out prompts are retained, so that what is measured on them is not of new prompts."
        )


def check_term(term: RetainTerm | None, lora: Any, objective: str, losses: Sequence[str]) -> None:
    """Refuses what an objective does not have, or what would need a second copy of the model.

    Args: term: the retain term.   lora: null with full fine-tuning.   objective: its name.   losses: the retain losses that it has.

    Raises:
        ValueError: another loss; or KL to the starting model with full fine-tuning.
    """
    if term is not None and term.loss not in losses:
        raise ValueError(f"{objective} has no retain.loss {term.loss}, but {', '.join(losses)}.")
    if term is not None and term.loss == "kl" and lora is None:
        raise ValueError(
            "retain.loss kl compares whole distributions with the starting model's, which full fine-tuning would have to keep as a second "
            "model. Train an adapter (backbone.lora), or set retain.loss to cross_entropy."
        )
