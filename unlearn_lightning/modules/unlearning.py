"""What every unlearning objective shares: a frozen starting model as the reference, without a second copy of it.

With an adapter the reference is the same net with the trainable adapter off. With full fine-tuning (`lora: null`) there is nothing to
switch off, so the reference log-likelihoods of all training examples are computed once, before step 1. The same cache is an option
with adapters: it saves a forward pass per step where there are several epochs, or several runs (learning rates, objectives) from one start,
which share it through a file.
"""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from lightning.pytorch.cli import OptimizerCallable
from torch import Tensor, nn

from unlearn_lightning.adapters import eval_mode, reference_mode
from unlearn_lightning.backbone import Backbone
from unlearn_lightning.data import Batch
from unlearn_lightning.likelihood import response_logits
from unlearn_lightning.modules.causal_lm import CausalLMModule, ScheduleCallable
from unlearn_lightning.modules.reference_file import ReferenceFile
from unlearn_lightning.modules.retain import RetainBatches, RetainTerm, check_term, token_kl
from unlearn_lightning.schedule import PaperAdamW, WarmupStableDecay


class Unlearning(CausalLMModule):
    """Base of the objectives: subclasses write `forget_loss`.

    Args:
        backbone: the trained model to unlearn from; its adapters are frozen and a fresh one is trained.
        optimizer: fresh; AdamW without weight decay unless set.
        lr_scheduler: per optimizer step; called with the optimizer and the number of steps.
        cache_reference: compute reference log-likelihoods once before step 1 (always so with full fine-tuning), and keep them beside the
            run folder for other runs from the same model on the same data. Pays with several epochs or runs.
        retain: what is kept meanwhile; null for a local objective, which sees the forget set only.
    """

    # Objectives that never ask for the reference say so, and nothing is computed for them.
    needs_reference: ClassVar[bool] = False

    def __init__(
        self,
        backbone: Backbone,
        optimizer: OptimizerCallable = PaperAdamW,
        lr_scheduler: ScheduleCallable = WarmupStableDecay,
        cache_reference: bool = False,
        retain: RetainTerm | None = None,
    ) -> None:
        super().__init__(backbone, optimizer, lr_scheduler)
        check_term(retain, backbone.lora)
        self.cache_reference, self.retain = cache_reference, retain
        self._reference: Tensor | None = None
        # Where the values are kept for other runs; set by the command line, which knows what identifies them.
        self.reference_file: ReferenceFile | None = None
        self._retain_batches: RetainBatches | None = None

    @property
    def local(self) -> bool:
        """Whether gradients come from the forget set alone."""
        return self.retain is None

    def build(self) -> nn.Module:
        """Earlier adapters frozen and a fresh one trainable, or all weights trainable."""
        return self.backbone.load_for_unlearning()

    def forget_loss(self, batch: Batch) -> Tensor:
        """(B,) the objective's value per forget example, before averaging."""
        raise NotImplementedError

    def loss(self, batch: Batch) -> Tensor:
        """A local objective is its forget loss."""
        return self.forget_loss(batch)

    def setup(self, stage: str) -> None:
        """Reads and encodes the retain data, so that bad data is found before work starts."""
        if stage == "fit" and self.retain is not None and self._retain_batches is None:
            data, tokenizer = self.retain.data, self.tokenizer
            self.backbone.check_length(data.max_length, f"max_length of the retain data ({data.stage_name})")
            self._retain_batches = RetainBatches(data.training_examples(tokenizer), data, tokenizer.pad_token_id)

    def share_of_loss(self, batch: Batch) -> Tensor:
        """() the forget loss's share of this micro-batch, and the weighted retain loss's beside it."""
        share = super().share_of_loss(batch)
        if self.retain is None:
            return share
        assert self._retain_batches is not None
        kept = self._retain_batches.beside(batch, self.trainer.datamodule.plan("train"), self.global_rank)  # type: ignore[attr-defined]
        kept = kept.to(self.device)
        self._step_tokens += kept.tokens
        return share + self.retain.weight * (self.retain_loss(kept) * kept.real).sum() / kept.batch_tokens

    def retain_loss(self, batch: Batch) -> Tensor:
        """(B,) the retain loss of each example, nats, summed over response tokens."""
        assert self.retain is not None
        if self.retain.loss == "cross_entropy":
            return -self.response_log_likelihood(batch)
        inputs = batch.input_ids, batch.attention_mask, batch.response_mask
        with reference_mode(self.net):
            reference = response_logits(self.net, *inputs)
        values = token_kl(reference, response_logits(self.net, *inputs))
        return torch.zeros(batch.input_ids.shape, device=values.device).masked_scatter(batch.response_mask, values).sum(-1)

    def reference_log_likelihood(self, batch: Batch) -> Tensor:
        """(B,) log p of each response under the frozen starting model, nats; no gradient."""
        if self._reference is not None:
            self._reference = self._reference.to(self.device)
            return self._reference[batch.example_index]
        with reference_mode(self.net):
            return self.response_log_likelihood(batch)

    @property
    def reads_reference(self) -> bool:
        """Whether a training step also passes its batch through the reference model."""
        return self.needs_reference and self._reference is None

    def on_train_start(self) -> None:
        """Computes the reference log-likelihoods where they are to be cached; a resumed run has them in its checkpoint."""
        wanted = self.needs_reference and (self.cache_reference or self.backbone.lora is None)
        if not wanted or self._reference is not None:
            return
        # A run that was interrupted before its first checkpoint starts here again. With full fine-tuning the net is then still untouched.
        if self.reference_file is None:
            self._reference = self._compute_reference()
        else:
            count = len(self.trainer.datamodule.encoded["train"])  # type: ignore[attr-defined]
            self._reference = self.reference_file.load_or(self._compute_reference, count, self.trainer.is_global_zero)

    @torch.no_grad()
    def _compute_reference(self) -> Tensor:
        data = self.trainer.datamodule  # type: ignore[attr-defined]
        plan = data.plan("train")
        values = torch.zeros(len(plan.lengths), dtype=torch.float32, device=self.device)
        # With an adapter the reference is the model without it, also where an interrupted run has moved it already.
        frozen = eval_mode(self.net) if self.backbone.lora is None else reference_mode(self.net)
        with frozen, self.trainer.precision_plugin.forward_context():
            # Sorted by length; every device takes its share, and the sum over devices puts the shares together.
            order = sorted(range(len(plan.lengths)), key=plan.lengths.__getitem__)
            chunks = [order[i : i + plan.micro_batch_size] for i in range(0, len(order), plan.micro_batch_size)]
            for turn in range(0, len(chunks), self.trainer.world_size):
                place = turn + self.global_rank
                chunk = chunks[min(place, len(chunks) - 1)]
                batch = data.training_batch(chunk).to(self.device)
                if place < len(chunks):
                    values[batch.example_index] = self.response_log_likelihood(batch).float()
                else:
                    self.response_log_likelihood(batch)
        return self.trainer.strategy.reduce(values, reduce_op="sum").cpu()

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Adds the cached reference, which the moved weights could no longer give."""
        super().on_save_checkpoint(checkpoint)
        checkpoint["reference_log_lik"] = None if self._reference is None else self._reference.cpu()

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Restores the cached reference."""
        super().on_load_checkpoint(checkpoint)
        self._reference = checkpoint["reference_log_lik"]
