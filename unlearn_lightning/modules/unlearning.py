"""What every unlearning objective shares: a frozen starting model as the reference, without a second copy of it.

With an adapter the reference is the same net with the trainable adapter off. With full fine-tuning (`lora: null`) there is nothing to
switch off, so the reference log-likelihoods of all training examples are computed once, before step 1. The same cache is an option
with adapters: it saves a forward pass per step where there are several epochs, or several runs (learning rates, objectives) from one start,
which share it through a file. A cached value belongs to a row's tokens: it is given to a row that has them, and to no other.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any, ClassVar

import torch
from lightning.pytorch.cli import OptimizerCallable
from torch import Tensor, nn

from unlearn_lightning.data import Batch, Encoded, StageData, collate, identity, second_responses
from unlearn_lightning.inference.likelihood import response_logits
from unlearn_lightning.models.adapters import eval_mode, reference_mode
from unlearn_lightning.models.backbone import Backbone
from unlearn_lightning.modules.causal_lm import CausalLMModule, ScheduleCallable
from unlearn_lightning.modules.gradient_weight import GRADIENT_WEIGHT, WeightCourse
from unlearn_lightning.modules.reference_file import UNCACHED, ReferenceFile, as_tensors, from_tensors
from unlearn_lightning.modules.reference_logits import KeptLogits, check_size
from unlearn_lightning.modules.retain import RetainBatches, RetainTerm, check_apart, check_term, tell_measured_and_retained, token_kl
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

    use_of_data = "unlearned"
    # Objectives that never ask for the reference say so, and nothing is computed for them.
    needs_reference: ClassVar[bool] = False
    # Objectives that compare whole distributions with the starting model's say so, and call `reference_logits`.
    needs_reference_logits: ClassVar[bool] = False
    # Objectives that compare two responses to each prompt say so, and read `batch.alternative`.
    needs_alternative: ClassVar[bool] = False
    # What `retain.loss` may be; an objective that has a loss of its own adds it, and overrides `retain_loss`.
    retain_losses: ClassVar[tuple[str, ...]] = ("cross_entropy", "kl")

    def __init__(
        self,
        backbone: Backbone,
        optimizer: OptimizerCallable = PaperAdamW,
        lr_scheduler: ScheduleCallable = WarmupStableDecay,
        cache_reference: bool = False,
        retain: RetainTerm | None = None,
    ) -> None:
        super().__init__(backbone, optimizer, lr_scheduler)
        check_term(retain, backbone.lora, type(self).__name__, self.retain_losses)
        self.cache_reference, self.retain = cache_reference, retain
        # Nats by row identity.
        self._reference: dict[int, float] | None = None
        self._kept_logits: KeptLogits | None = None
        # Where the values are kept for other runs; set by the command line, which knows what identifies them.
        self.reference_file: ReferenceFile | None = None
        self._retain_batches: RetainBatches | None = None
        self._weights = WeightCourse()

    @property
    def local(self) -> bool:
        """Whether the forget set alone decides the steps: no gradient, statistic or bound comes from retain data."""
        return self.retain is None

    @property
    def retained_data(self) -> StageData | None:
        """The retain term's data; none for a local objective."""
        return None if self.retain is None else self.retain.data

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
        """Reads and encodes the retain data, so that bad data is found before work starts.

        Raises:
            ValueError: the objective compares two responses to each prompt, and the data has one; or most of the forget set is retained.
        """
        if stage == "fit" and self.needs_alternative and not second_responses(self._training_examples()):
            raise ValueError(
                f"{type(self).__name__} compares two responses to each prompt, and the {type(self.trainer.datamodule).__name__} data has "  # type: ignore[attr-defined]
                "one. Set data.alternative_field to the field that holds the second."
            )
        if stage == "fit" and self.needs_reference_logits and self.backbone.lora is None:
            check_size(type(self).__name__, self._training_examples(), len(self.tokenizer))
        if stage == "fit" and self.retain is not None and self._retain_batches is None:
            data, tokenizer = self.retain.data, self.tokenizer
            self.backbone.check_length(data.max_length, f"max_length of the retain data ({data.stage_name})")
            retained = data.training_examples(tokenizer, "retained")
            check_apart(self._training_examples(), retained)
            tell_measured_and_retained(self.trainer.datamodule, data)  # type: ignore[attr-defined]
            self._retain_batches = RetainBatches(retained, data, tokenizer.pad_token_id)

    def share_of_loss(self, batch: Batch) -> Tensor:
        """() the forget loss's share of this micro-batch, and the weighted retain loss's beside it."""
        share = super().share_of_loss(batch)
        self._add_share("train/forget_loss", share)
        if not self.adds_retain_loss:
            return share
        assert self._retain_batches is not None
        kept = self._retain_batches.beside(batch, self.trainer.datamodule.plan("train"), self.global_rank)  # type: ignore[attr-defined]
        kept = kept.to(self.device)
        self._step_tokens += kept.tokens
        retain_share = (self.retain_loss(kept) * kept.real).sum() / kept.batch_tokens
        self._add_share("train/retain_loss", retain_share)
        return share + self.weight_of_retain() * retain_share

    @property
    def adds_retain_loss(self) -> bool:
        """Whether a training step passes a retain batch, too."""
        return self.retain is not None

    def weight_of_retain(self) -> float:
        """What the retain loss is multiplied by in this step."""
        return 1.0 if self.retain is None else self.retain.weight

    def sequences_per_example(self, batch_size: int) -> float:
        """One or two responses, and the retain batch's share."""
        kept = self.retain.data.batch_size / batch_size if self.retain is not None and self.adds_retain_loss else 0.0
        return (2.0 if self.needs_alternative else 1.0) + kept

    def passed(self, batch: Batch) -> list[Batch]:
        """Both responses, where the objective compares them."""
        return [batch, batch.alternative] if self.needs_alternative and batch.alternative is not None else [batch]

    def _training_examples(self) -> Sequence[Encoded]:
        found: Sequence[Encoded] = self.trainer.datamodule.encoded["train"]  # type: ignore[attr-defined]
        return found

    def retain_loss(self, batch: Batch) -> Tensor:
        """(B,) the retain loss of each example, nats, summed over response tokens."""
        assert self.retain is not None
        if self.retain.loss == "cross_entropy":
            return -self.response_log_likelihood(batch)
        inputs = batch.input_ids, batch.attention_mask, batch.response_mask
        with reference_mode(self.net):
            reference = response_logits(self.net, *inputs)
        return self.per_response(token_kl(reference, response_logits(self.net, *inputs)), batch)

    @staticmethod
    def per_response(values: Tensor, batch: Batch) -> Tensor:
        """Sums over each response's tokens.   Args: values: (N,) of the batch's response tokens, row by row.   Returns: (B,)."""
        return torch.zeros(batch.input_ids.shape, device=values.device).masked_scatter(batch.response_mask, values).sum(-1)

    def reference_logits(self, batch: Batch) -> Tensor:
        """(N, V) the starting model's logits that predict the batch's response tokens, row by row; no gradient."""
        if self._kept_logits is not None:
            return self._kept_logits.of_batch(batch)
        with reference_mode(self.net):
            return response_logits(self.net, batch.input_ids, batch.attention_mask, batch.response_mask)

    def divergence_from_start(self, batch: Batch) -> Tensor:
        """(B,) KL divergence from the starting model's next-token distributions to the model's, nats, summed over response tokens."""
        logits = response_logits(self.net, batch.input_ids, batch.attention_mask, batch.response_mask)
        return self.per_response(token_kl(self.reference_logits(batch), logits), batch)

    def further_reference_examples(self) -> Sequence[Encoded]:
        """Examples beside the training data whose reference log-likelihoods are cached before step 1 as well; none unless overridden.

        An objective that asks for the reference of anything but its training batches and their second responses (retain data, say)
        names it here, encoded with `self.trainer.datamodule.encode(examples, self.tokenizer)`; full fine-tuning cannot do without.
        """
        return []

    def reference_log_likelihood(self, batch: Batch) -> Tensor:
        """(B,) log p of each response under the frozen starting model, nats; no gradient.

        Raises:
            ValueError: some row was not cached, and full fine-tuning has no starting model left to ask.
        """
        if self._reference is not None:
            values = [self._reference.get(row) for row in batch.identities()]
            unknown = sum(value is None for value in values)
            if self._together(not unknown):
                return torch.tensor(values, dtype=torch.float32, device=self.device)
            if self.backbone.lora is None:
                raise ValueError(UNCACHED.format(unknown=unknown, rows=len(values), objective=type(self).__name__))
        with reference_mode(self.net):
            return self.response_log_likelihood(batch)

    def _together(self, known: bool) -> bool:
        """Whether all of FSDP2's processes say so, as these must make their forward passes together."""
        return self.trainer.strategy.reduce_boolean_decision(known) if self.device_mesh is not None else known

    @property
    def reads_reference(self) -> bool:
        """Whether a training step also passes its batch through the reference model."""
        return (self.needs_reference and self._reference is None) or (self.needs_reference_logits and self._kept_logits is None)

    def on_train_start(self) -> None:
        """Computes the reference log-likelihoods where they are to be cached; a resumed run has them in its checkpoint."""
        if self.needs_reference_logits and self.backbone.lora is None and self._kept_logits is None:
            self._keep_logits()
        wanted = self.needs_reference and (self.cache_reference or self.backbone.lora is None)
        if not wanted or self._reference is not None:
            return
        # A run that was interrupted before its first checkpoint starts here again. With full fine-tuning the net is then still untouched.
        train = self._training_examples()
        parts = [train, second_responses(train) if self.needs_alternative else [], list(self.further_reference_examples())]
        wanted_rows = {identity(example) for part in parts for example in part}
        if self.reference_file is None:
            self._reference = self._compute_reference(parts)
        else:
            first = self.trainer.is_global_zero
            self._reference = self._own_file(self.reference_file).load_or(lambda: self._compute_reference(parts), wanted_rows, first)

    def _own_file(self, file: ReferenceFile) -> ReferenceFile:
        """The file of values to the last bit: other numbers of examples at once round otherwise, and memory may have decided on them."""
        chosen = self.trainer.datamodule.at_once  # type: ignore[attr-defined]
        return file if chosen is None else ReferenceFile(file.path.with_stem(f"{file.path.stem}-{chosen}"))

    @torch.no_grad()
    def _keep_logits(self) -> None:
        """Computes the predictions that full fine-tuning is about to move; every process keeps all of them."""
        at_once = self.trainer.datamodule.plan("train").micro_batch_size  # type: ignore[attr-defined]

        def logits(batch: Batch) -> Tensor:
            batch = batch.to(self.device)
            return response_logits(self.net, batch.input_ids, batch.attention_mask, batch.response_mask)

        with eval_mode(self.net), self.trainer.precision_plugin.forward_context():
            self._kept_logits = KeptLogits.of(self._training_examples(), at_once, self.tokenizer.pad_token_id, logits)

    def _compute_reference(self, parts: Sequence[Sequence[Encoded]]) -> dict[int, float]:
        """Nats by row identity; part by part, so that the training data's values do not depend, to the last bit, on what is beside them."""
        # With an adapter the reference is the model without it, also where an interrupted run has moved it already.
        frozen = eval_mode(self.net) if self.backbone.lora is None else reference_mode(self.net)
        found: dict[int, float] = {}
        with frozen, self.trainer.precision_plugin.forward_context():
            for part in filter(None, parts):
                for example, value in zip(part, self._log_likelihoods(part).tolist(), strict=True):
                    found.setdefault(identity(example), value)
        return found

    @torch.no_grad()
    def _log_likelihoods(self, examples: Sequence[Encoded]) -> Tensor:
        """(N,) log p of each response under the net as it is; every device takes its share."""
        at_once = self.trainer.datamodule.plan("train").micro_batch_size  # type: ignore[attr-defined]
        values = torch.zeros(len(examples), dtype=torch.float32, device=self.device)
        # Sorted by length; the sum over devices puts the shares together.
        order = sorted(range(len(examples)), key=lambda index: len(examples[index]))
        chunks = [order[i : i + at_once] for i in range(0, len(order), at_once)]
        for turn in range(0, len(chunks), self.trainer.world_size):
            place = turn + self.global_rank
            chunk = chunks[min(place, len(chunks) - 1)]
            batch = collate([examples[index] for index in chunk], self.tokenizer.pad_token_id).to(self.device)
            share = self.response_log_likelihood(batch).float()
            if place < len(chunks):
                values[chunk] = share
        return self.trainer.strategy.reduce(values, reduce_op="sum").cpu()

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Adds the cached reference, which the moved weights could no longer give, and the course of the gradient's weight."""
        super().on_save_checkpoint(checkpoint)
        checkpoint["reference_log_lik"] = None if self._reference is None else as_tensors(self._reference)
        checkpoint["gradient_weight"] = asdict(self._weights)
        if self._kept_logits is not None:
            checkpoint["reference_logits"] = self._kept_logits.state()

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Restores what was kept."""
        super().on_load_checkpoint(checkpoint)
        kept = checkpoint["reference_log_lik"]
        self._reference = None if kept is None else from_tensors(kept)
        if (logits := checkpoint.get("reference_logits")) is not None:
            self._kept_logits = KeptLogits.from_state(logits)
        self._weights = WeightCourse(**checkpoint.get("gradient_weight", {}))

    # --- the gradient's weight -------------------------------------------------------------------------------------------------

    def log_step(self, values: dict[str, float]) -> None:
        """Also remembers where the gradient's weight was spent."""
        super().log_step(values)
        self._weights.note(self.trainer.global_step + 1, values.get(GRADIENT_WEIGHT))

    def on_train_end(self) -> None:
        """Says where the objective's gradients were spent, if they were."""
        if (sentence := self._weights.sentence(self.trainer.global_step)) and self.trainer.is_global_zero:
            print(sentence, flush=True)
