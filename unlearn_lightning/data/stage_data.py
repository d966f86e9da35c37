"""One stage's data as a LightningDataModule, shared by fine-tuning and by every objective.

    data = TofuStage(source="files", batch_size=32)       # reads $UNLEARN_DATA/tofu/full.json
    trainer.fit(StageFineTuning(backbone), datamodule=data)

A stage says where its examples come from (`ExampleSource`: class attributes and `world_rows`); here they become tokens and batches.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import islice
from typing import Any

import lightning.pytorch as pl
from lightning.pytorch.utilities.rank_zero import rank_zero_info, rank_zero_warn
from torch.utils.data import DataLoader
from transformers import PreTrainedTokenizerBase

from unlearn_lightning.data.batching import Batch, BatchSource, EpochPlan, EpochSampler, second_responses
from unlearn_lightning.data.example_source import HELD_OUT, Split
from unlearn_lightning.data.examples import Encoded, Encoder, Example, lengths_of
from unlearn_lightning.data.kept_source import KeptSource
from unlearn_lightning.data.leave_out import JSONValue
from unlearn_lightning.data.micro_batch import what_fits
from unlearn_lightning.data.record_format import RecordFormat
from unlearn_lightning.data.store_keys import ANY_USE, kept_examples
from unlearn_lightning.sources.quoting import quoted


class StageData(KeptSource, pl.LightningDataModule):
    """The examples of one training stage, in batches that give the same optimizer step on any number of devices.

    Args:
        source: `world` (built in, no files), `files` (this stage's file below data_root), `hub` (this stage's Hub data set),
            the path of a JSON / JSON-lines file or of a folder in the format of `datasets`, or `hub:owner/name[/config][:split]`.
        held_out_source: the same for held-out examples; null for the stage's own test file, or else a part of `source` that
            training then never sees: whole prompts, however often each stands there.
        data_root: folder of `files`; null for the environment variable UNLEARN_DATA.
        train_examples: how many to train on; null for all there are (the world: a stage's usual number).
        held_out_examples: how many to keep for measuring; at most so many where a file repeats prompts. Null for 128, but for none of a
            source that would lose them while it is unlearned or retained.
        prompt_field, response_field: names of a record's fields; null for the stage's own. A record without that prompt field may be a
            conversation of one user turn and one assistant turn, in `messages` or `conversations`.
        input_field: a field that is joined to the prompt behind a blank line, where it is not blank (Alpaca's format: instruction, blank
            line, input). Null for `input` or `context` beside a prompt field `instruction`, and otherwise none.
        response_text: one text as the response to every prompt, instead of a field.
        alternative_field: a field with a second response to the same prompt (rejected beside chosen), for objectives that compare the two;
            others do not read it. Null for none.
        ignore_fields: fields that are dropped although they may belong to the prompt; a record with one that is not used is refused:
            input, context, instruction, system, system_prompt, history, messages, conversations, tools, images, videos, audios.
        leave_out: field -> values of any type; records of `source` with such a value are left out, for example
            {prompt_style: [morse, caesar], label: [0]}. The integer and the name of a `datasets` ClassLabel both work. Null for what
            this stage leaves out of its Hub data set.
        prompt_template: text around the prompt, such as "{prompt} Think step by step."
        system_prompt: opens every conversation; empty for none.
        max_length: longest sequence, tokens; longer responses are cut and counted.
        skip_long_prompts: leave out, and count, examples whose prompt fills max_length; otherwise they are an error.
        batch_size: examples per optimizer step over all devices.
        micro_batch_size: examples one device holds at once; null for batch_size / devices, or where that takes more memory than there is
            for as many as fit, which is then printed. Changes the result by rounding only.
        bucket_batches: batches are formed by length within windows of this many batches; 1 leaves the order random.
        seed: of the order of examples; filled from seed_everything when null.
        data_seed: of the world's contents and of the held-out part.
        num_workers: processes that prepare batches.
    """

    def __init__(
        self,
        source: str = "world",
        held_out_source: str | None = None,
        data_root: str | None = None,
        train_examples: int | None = None,
        held_out_examples: int | None = None,
        prompt_field: str | None = None,
        response_field: str | None = None,
        input_field: str | None = None,
        response_text: str | None = None,
        alternative_field: str | None = None,
        ignore_fields: list[str] | None = None,
        leave_out: dict[str, list[JSONValue]] | None = None,
        prompt_template: str = "{prompt}",
        system_prompt: str = "",
        max_length: int = 512,
        skip_long_prompts: bool = False,
        batch_size: int = 32,
        micro_batch_size: int | None = None,
        bucket_batches: int = 100,
        seed: int | None = None,
        data_seed: int = 0,
        num_workers: int = 0,
    ) -> None:
        super().__init__()
        at_least_one = {
            "max_length": max_length, "batch_size": batch_size, "train_examples": train_examples, "micro_batch_size": micro_batch_size,
            "bucket_batches": bucket_batches,
        }  # fmt: skip
        at_least_none = {"held_out_examples": held_out_examples, "num_workers": num_workers}
        for least, settings in ((1, at_least_one), (0, at_least_none)):
            for what, value in settings.items():
                if value is not None and value < least:
                    raise ValueError(f"{type(self).__name__}: {what} must be at least {least}, got {value}.")
        if "{prompt}" not in prompt_template:
            raise ValueError(f"prompt_template must contain {{prompt}}, got {quoted(prompt_template)}.")
        self.source, self.held_out_source, self.data_root = source, held_out_source, data_root
        self.train_examples, self.held_out_examples = train_examples, HELD_OUT if held_out_examples is None else held_out_examples
        on_hub = source == "hub"
        self.prompt_field = prompt_field or (on_hub and self.hub_prompt_field) or self.fields[0]
        self.response_field = response_field or self.fields[1]
        response_text = response_text or (self.hub_response_text if on_hub and response_field is None else None)
        self.record_format = RecordFormat(
            self.prompt_field, self.response_field, response_text, input_field, tuple(ignore_fields or ()), system_prompt,
            may_converse=prompt_field is None, alternative_field=alternative_field,
        )  # fmt: skip
        self.leave_out = leave_out if leave_out is not None else self.hub_leave_out if on_hub else {}
        self.prompt_template, self.system_prompt, self.max_length = prompt_template, system_prompt, max_length
        self.batch_size, self.micro_batch_size, self.bucket_batches = batch_size, micro_batch_size, bucket_batches
        self.skip_long_prompts = skip_long_prompts
        self.seed, self.data_seed, self.num_workers = seed, data_seed, num_workers
        self.encoded: dict[str, Sequence[Encoded]] = {}
        # What `validate` and `test` go over; null in a training run, where probes measure.
        self.validated: Split | None = None
        # Examples that one device takes at once, where fewer of them fit than it has.
        self.at_once: int | None = None

    # --- tokens and batches -----------------------------------------------------------------------------------------------

    def encoder(self, tokenizer: PreTrainedTokenizerBase) -> Encoder:
        """Turns this stage's prompts and responses into tokens."""
        return Encoder(tokenizer, self.system_prompt, self.max_length)

    def fitting(self, split: Split, tokenizer: PreTrainedTokenizerBase, limit: int | None = None) -> list[Example]:
        """The stage's examples, without those whose prompt is too long where these are to be skipped; no more are read than are asked for.

        Args:
            split: of the examples.
            tokenizer: of the model.
            limit: how many; null for all.
        """
        kept: list[Example] = []
        read, there = 0, self.each_example(split)
        while (limit is None or len(kept) < limit) and (some := list(islice(there, None if limit is None else limit - len(kept)))):
            kept += self._fitting(some, tokenizer)
            read += len(some)
        self._tell(read - len(kept), read, "examples were left out: long prompts")
        return kept

    def _fitting(self, examples: list[Example], tokenizer: PreTrainedTokenizerBase) -> list[Example]:
        if not self.skip_long_prompts:
            return examples
        encoder = self.encoder(tokenizer)
        return [e for e in examples if len(encoder.prompt_ids(e.prompt)) < self.max_length]

    def encode(self, examples: Sequence[Example], tokenizer: PreTrainedTokenizerBase) -> list[Encoded]:
        """Examples as tokens; each says whether its response was cut, and how many were is printed."""
        encoded = self.tokens_of(examples, tokenizer)
        seconds = second_responses(encoded)
        self._tell(sum(one.truncated for one in encoded), len(encoded), f"responses were cut at max_length {self.max_length}")
        self._tell(sum(one.truncated for one in seconds), len(seconds), f"second responses were cut at max_length {self.max_length}")
        return encoded

    def measured(self, split: Split, tokenizer: PreTrainedTokenizerBase, limit: int | None) -> tuple[list[Example], list[Encoded]]:
        """What a probe measures: the first `limit` examples of a split (null for all), and the same as tokens."""
        examples = self.fitting(split, tokenizer, limit)
        return examples, self.encode(examples, tokenizer)

    def tokens_of(self, examples: Sequence[Example], tokenizer: PreTrainedTokenizerBase) -> list[Encoded]:
        """What `encode` makes of examples, each for itself; stages may make tokens in another way."""
        return self.encoder(tokenizer).encode(examples)

    def _tell(self, count: int, there: int, what: str) -> None:
        if count:
            rank_zero_warn(f"{count} of {there} {self.stage_name} {what}.")

    def encoded_examples(self, split: Split, tokenizer: PreTrainedTokenizerBase) -> Sequence[Encoded]:
        """The examples of a split as tokens. Those of a large file are made once, and kept for whoever asks again (token_store.py)."""
        found = kept_examples(self, split, tokenizer)
        if found is None:
            return self.encode(self.fitting(split, tokenizer), tokenizer)
        facts = found.facts
        self._tell(facts["long"], facts["rows"], "examples were left out: long prompts")
        self._tell(facts["cut"], len(found), f"responses were cut at max_length {self.max_length}")
        self._tell(facts["seconds_cut"], len(found), f"second responses were cut at max_length {self.max_length}")
        return found

    def training_examples(self, tokenizer: PreTrainedTokenizerBase, use: str = "trained on") -> Sequence[Encoded]:
        """What is trained on, as tokens; prints how many examples that are, and how many are held out."""
        encoded = self.encoded_examples("train", tokenizer)
        facts = getattr(encoded, "facts", None)
        if facts is None:
            rows, kept = len(self.rows("train")), len(self._fitting(self.examples("train"), tokenizer))
            facts = {"rows": rows, "long": rows - kept, "account": self.account(rows - kept, use)}
        account, texts = facts["account"].replace(ANY_USE, use), facts["rows"] - facts["long"]
        pieces = f" in {len(encoded):,} pieces" if len(encoded) != texts else ""
        rank_zero_info(f"{account}; {sum(lengths_of(encoded)):,} tokens{pieces}, batches of {self.batch_size}.")
        return encoded

    def setup(self, stage: str) -> None:
        """Encodes what the command needs, and derives accumulation from batch_size, micro_batch_size and devices."""
        assert self.trainer is not None
        tokenizer = self._tokenizer
        self.trainer.lightning_module.backbone.check_length(self.max_length, f"max_length of the {self.stage_name} stage")  # type: ignore[union-attr,operator]
        if stage == "fit" and "train" not in self.encoded:
            use = str(self.trainer.lightning_module.use_of_data)
            self.encoded["train"] = self.training_examples(tokenizer, use)
            self.at_once = what_fits(self.trainer, self.batch_size, self.encoded["train"]) if self.micro_batch_size is None else None
            plan = self.plan("train")
            if self.trainer.accumulate_grad_batches not in (1, plan.accumulation):
                raise ValueError(
                    f"trainer.accumulate_grad_batches is {self.trainer.accumulate_grad_batches}, but batch_size {plan.batch_size} on "
                    f"{plan.world_size} device(s) with {plan.micro_batch_size} at once takes {plan.accumulation}. Leave it out: it follows "
                    "from data.batch_size and data.micro_batch_size."
                )
            self.trainer.accumulate_grad_batches = plan.accumulation
            self.trainer.limit_train_batches = self._limit(plan)
        elif stage in ("validate", "test"):
            self.validated = self.usual_split
            if self.validated == "train":
                rank_zero_info(f"{self.stage_name}: no examples are held out, so that the validation goes through all examples.")
            self.encoded[self.validated] = self.encoded_examples(self.validated, tokenizer)

    def _limit(self, plan: EpochPlan) -> int | float:
        assert self.trainer is not None
        if getattr(self.trainer, "overfit_batches", 0):
            raise ValueError(
                "trainer.overfit_batches would replace the stage's sampler. To train on a few examples set data.train_examples, and to "
                "stop an epoch early trainer.limit_train_batches."
            )
        return plan.limited(self.trainer.limit_train_batches)

    def plan(self, split: Split) -> EpochPlan:
        """How this split's examples are batched on the trainer's devices."""
        assert self.trainer is not None
        devices = self.trainer.world_size
        if self.micro_batch_size is None and self.batch_size % devices:
            raise ValueError(f"batch_size {self.batch_size} must be a multiple of the number of devices, {devices}.")
        micro = self.micro_batch_size or (self.at_once if split == "train" else None) or self.batch_size // devices
        return EpochPlan(lengths_of(self.encoded[split]), self.batch_size, micro, devices, self.bucket_batches)

    def total_steps(self) -> int:
        """Optimizer steps of the whole run.

        Unlike `trainer.estimated_stepping_batches` this makes no DataLoader, which would start from the beginning in a resumed run:
        optimizers are configured before Lightning restores its progress.
        """
        assert self.trainer is not None
        per_epoch = math.ceil(self.micro_batches_per_epoch() / self.plan("train").accumulation)
        epochs, steps = self.trainer.max_epochs, self.trainer.max_steps
        bounds = [per_epoch * epochs] if epochs is not None and epochs >= 0 else []
        bounds += [steps] if steps >= 0 else []
        if not bounds:
            raise ValueError("Training would never end: set trainer.max_epochs or trainer.max_steps.")
        if min(bounds) < 1:
            raise ValueError(
                f"trainer.max_epochs is {epochs} and trainer.max_steps is {steps}, so that nothing would be trained. `unlearn "
                "validate RUN` measures a run as it is."
            )
        return min(bounds)

    def micro_batches_per_epoch(self) -> int:
        """How many micro-batches one device takes per epoch."""
        assert self.trainer is not None
        there, limit = len(EpochSampler(self.plan("train"), 0, 0)), self.trainer.limit_train_batches
        return min(there, limit) if isinstance(limit, int) else int(there * limit)

    def train_dataloader(self) -> DataLoader[Batch]:
        """Micro-batches of the current epoch, from where an interrupted run stopped."""
        assert self.trainer is not None
        plan, epoch = self.plan("train"), self.trainer.current_epoch
        sampler = EpochSampler(plan, self.seed or 0, self.trainer.global_rank, epoch)
        done = self.trainer.fit_loop.epoch_loop.batch_progress.current.ready
        if done >= len(sampler):
            sampler.set_epoch(epoch + 1)
        else:
            sampler.start = done
        return self._loader("train", sampler)

    def val_dataloader(self) -> DataLoader[Batch] | list[Any]:
        """The held-out examples, or all where none are held out, for `unlearn validate`; fit measures with probe callbacks instead."""
        if self.validated is None:
            return []
        assert self.trainer is not None
        return self._loader(self.validated, EpochSampler(self.plan(self.validated), 0, self.trainer.global_rank))

    def test_dataloader(self) -> DataLoader[Batch] | list[Any]:
        """The same as validation."""
        return self.val_dataloader()

    @property
    def _tokenizer(self) -> Any:
        assert self.trainer is not None
        return self.trainer.lightning_module.tokenizer

    def _loader(self, split: Split, sampler: EpochSampler) -> DataLoader[Batch]:
        source = BatchSource(self.encoded[split], self._tokenizer.pad_token_id)
        return DataLoader(source, batch_size=None, sampler=sampler, num_workers=self.num_workers)
