"""The backbone: base causal LM, tokenizer and adapters, from a Hub id, a local folder, or built from a config.

    backbone:
      model: meta-llama/Llama-3.2-1B
      chat_template_from: meta-llama/Llama-3.2-1B-Instruct
      lora: {rank: 64, alpha: 128}
      adapter: runs/tofu/adapter          # continue (fine-tuning) or freeze (unlearning) an earlier run's adapter

Run folders hold adapters, not models; with `lora: null` they hold the weights, and the next run names them as `model`.

With `quantization: nf4` the base model's linear layers are 4-bit (QLoRA, Dettmers et al. 2023, arXiv:2305.14314). Earlier adapters are
then stacked under the trainable one and never merged, because merging into 4-bit weights loses much of what an adapter says.
"""

from __future__ import annotations

import unlearn_lightning.inference.hub_kernels  # isort: skip  # noqa: F401

import functools
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch
from bitsandbytes.nn import Linear4bit
from lightning.pytorch.utilities.rank_zero import rank_zero_info
from peft import LoraConfig, PeftModel
from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM, BitsAndBytesConfig, PreTrainedTokenizerBase
from transformers.modeling_layers import GradientCheckpointingLayer

from unlearn_lightning.inference.chat_format import DATE, ChatSettings
from unlearn_lightning.inference.cross_entropy import CrossEntropy, check_cross_entropy
from unlearn_lightning.inference.generation import end_tokens
from unlearn_lightning.inference.prefix_sharing import take_shortcuts
from unlearn_lightning.models.adapters import TRAINABLE, fresh_lora, load_adapter, trainable_lora
from unlearn_lightning.models.base_model import load_pretrained, quiet
from unlearn_lightning.models.chat_tokenizer import load_tokenizer
from unlearn_lightning.models.merging import TEXT, UnequalMerge, merge, stack
from unlearn_lightning.models.places import check_place, located
from unlearn_lightning.models.positions import positions
from unlearn_lightning.models.reading import reading
from unlearn_lightning.models.scratch import Scratch, build_model
from unlearn_lightning.models.sharding import gathered
from unlearn_lightning.records.disk import writing

# How many graphs torch.compile may make of a decoder layer.
GRAPHS = 32
Dtype = Literal["float32", "bfloat16", "float16"]


@dataclass(frozen=True)
class Lora:
    """A low-rank adapter (Hu et al. 2021, arXiv:2106.09685).

    Args:
        rank: rank r of the update.
        alpha: the update is scaled by alpha / rank.
        dropout: of the adapter's input, while training.
        target_modules: names of the adapted linear layers, or "all-linear" for all but the head.
    """

    rank: int = 16
    alpha: int = 32
    dropout: float = 0.0
    target_modules: str | list[str] = "all-linear"

    def __post_init__(self) -> None:
        for what, value in {"rank": self.rank, "alpha": self.alpha}.items():
            if value < 1:
                raise ValueError(f"lora.{what} must be at least 1, got {value}.")
        if not 0 <= self.dropout < 1:
            raise ValueError(f"lora.dropout must be at least 0 and below 1, got {self.dropout}.")

    def peft_config(self) -> LoraConfig:
        """The adapter's settings in PEFT's words."""
        return LoraConfig(
            r=self.rank, lora_alpha=self.alpha, lora_dropout=self.dropout, target_modules=self.target_modules, task_type="CAUSAL_LM"
        )


@dataclass(frozen=True)
class Backbone:
    """What is trained: a base model, its tokenizer and its adapters.

    Args:
        model: Hub id or local folder of the base model; `builtin:tiny-llama` and `builtin:tiny-qwen2` are small ones that ship.
        scratch: where `model` is null: build the base model from a config, with random weights and a tokenizer trained on texts.
        tokenizer: Hub id or folder of another tokenizer than the model's own.
        chat_template_from: Hub id or folder whose chat template is used, such as the instruct sibling of a base model.
        template_date: what a chat template that prints today's date prints instead, so that every day gives the same tokens.
        lora: train an adapter; null trains all weights.
        adapter: folder(s) of earlier adapters, bottom first. Fine-tuning continues the last one; unlearning freezes them all.
        dtype: of the base model's weights, and of the computation where they are quantised; adapters stay float32.
        quantization: nf4 (4-bit, double quantisation) or int8 of the base's linear layers but the head, by bitsandbytes; needs lora.
        gradient_checkpointing: compute activations again in the backward pass instead of keeping them; slower, the same result.
        attention: transformers' attention implementation, such as sdpa (eager where an architecture lacks it), eager or flash_attention_2.
        compile: torch.compile's backend for the decoder layers, such as inductor; null for none. The same result to rounding; the first
            steps take longer, and inductor needs a C++ compiler (CPU) or Triton (CUDA).
        cross_entropy: how a large vocabulary's logits are handled. `full` holds all logits of a micro-batch's response tokens, `chunked` a
            piece at a time, computed again in the backward pass, and `liger` none (CUDA, needs liger-kernel). The same result to rounding.
        shortcuts: leave out of a pass what no likelihood that is read depends on. The same result to rounding.
        revision: of the Hub model.
        seed: of random weights (scratch models, fresh adapters); filled from seed_everything when null.
    """

    model: str | None = None
    scratch: Scratch | None = None
    tokenizer: str | None = None
    chat_template_from: str | None = None
    template_date: str = DATE
    lora: Lora | None = field(default_factory=Lora)
    adapter: str | list[str] | None = None
    dtype: Dtype = "float32"
    quantization: Literal["nf4", "int8"] | None = None
    gradient_checkpointing: bool = False
    attention: str = "sdpa"
    compile: str | None = None
    cross_entropy: CrossEntropy = "full"
    shortcuts: bool = True
    revision: str | None = None
    seed: int | None = None

    def __post_init__(self) -> None:
        if self.model is None and self.scratch is None:
            raise ValueError("A backbone needs `model` (Hub id or folder) or `scratch` (built from a config); see configs/backbones.")
        ChatSettings(self.template_date)
        if self.compile is not None and self.compile not in torch.compiler.list_backends(exclude_tags=()):
            raise ValueError(f"backbone.compile names no backend of torch.compile: {self.compile!r}. Usual is inductor.")
        if self.adapters and self.lora is None:
            raise ValueError(
                "backbone.adapter is set but backbone.lora is null. With full fine-tuning a run folder holds weights: "
                "set backbone.model to RUN/model instead."
            )
        if self.quantization and (self.lora is None or self.model is None):
            raise ValueError(
                f"backbone.quantization {self.quantization} freezes the base model's weights: it needs backbone.lora, and a base model "
                "that was trained before (backbone.model)."
            )

    @property
    def adapters(self) -> list[str]:
        """The earlier adapters' folders, bottom first."""
        return [self.adapter] if isinstance(self.adapter, str) else list(self.adapter or [])

    def load_tokenizer(self) -> PreTrainedTokenizerBase:
        """The tokenizer with a chat template and a padding token; cached per process, so treat it as read-only.

        Its `chat_settings` say how `ChatFormat` renders with it.

        Raises:
            ValueError: it has no chat template.
        """
        for setting in ("tokenizer" if self.tokenizer else "model", "chat_template_from"):
            self._check(setting)
        own, model, template = (place and located(place) for place in (self.tokenizer, self.model, self.chat_template_from))
        return load_tokenizer(own, model, self.scratch, template, self.revision, self.template_date)

    def check_length(self, tokens: int, what: str) -> None:
        """Refuses sequences that are longer than the model has positions for.

        Args:
            tokens: of the longest sequence.
            what: the settings that make it so long, for the message.

        Raises:
            ValueError: they are more than the model's positions.
        """
        self._check("model")
        limit = self.scratch.max_positions if self.scratch and self.model is None else _positions(located(str(self.model)), self.revision)
        if limit is not None and tokens > limit:
            raise ValueError(f"{what} is {tokens} tokens, but {self.model or 'the scratch model'} has {limit} positions: lower it.")

    def _check(self, setting: str) -> None:
        if place := getattr(self, setting):
            check_place(place, f"backbone.{setting}", revision=self.revision if setting == "model" else None)

    def load_base(self) -> nn.Module:
        """The base model with its weights in `dtype` or quantised, without adapters, in training mode.

        Where torch's default device is `meta` an unquantised one has shapes only, and no weights are read.
        """
        base = self._read_base()
        if self.gradient_checkpointing:
            base.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
        net: nn.Module = base.train()
        return net

    def _read_base(self) -> Any:
        dtype = getattr(torch, self.dtype)
        # Transformers' own choice is sdpa where the architecture has it; asked for by name, it is an error where not.
        attention = None if self.attention == "sdpa" else self.attention
        if self.model is None:
            assert self.scratch is not None
            return build_model(self.scratch, self.load_tokenizer(), self.seed or 0).to(dtype)
        self._check("model")
        if torch.get_default_device().type == "meta":
            with reading(located(self.model)):
                config = AutoConfig.from_pretrained(located(self.model), revision=self.revision)
            return AutoModelForCausalLM.from_config(config, dtype=dtype, attn_implementation=attention)
        base = load_pretrained(
            located(self.model), self.revision, dtype=dtype, attn_implementation=attention,
            quantization_config=self._quantization_config(dtype),
        )  # fmt: skip
        for layer in base.modules():
            if isinstance(layer, Linear4bit):
                # On CPUs with AVX512-BF16 an eval forward would repack the weights in place, and training after it would be wrong.
                layer.support_avx512bf16_for_cpu = False
        return base

    def _quantization_config(self, dtype: torch.dtype) -> BitsAndBytesConfig | None:
        if self.quantization == "nf4":
            return BitsAndBytesConfig(
                load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True, bnb_4bit_compute_dtype=dtype
            )
        return BitsAndBytesConfig(load_in_8bit=True) if self.quantization == "int8" else None

    def load_for_fine_tuning(self) -> nn.Module:
        """The model of a training stage: all weights trainable, or one trainable adapter (the last of `adapter`, else a fresh one)."""
        return self._with_options(self._for_fine_tuning())

    def _for_fine_tuning(self) -> nn.Module:
        base = self.load_base()
        if self.lora is None:
            return base
        if not self.adapters:
            return self._fresh_adapter(base)
        base = self._freeze(base, self.adapters[:-1])
        return trainable_lora(load_adapter(base, self.adapters[-1], trainable=True))

    def load_for_unlearning(self) -> nn.Module:
        """The model of unlearning: earlier adapters frozen, and a fresh trainable one, or all weights.

        Frozen adapters of a quantised base are stacked. Of another they are merged in memory, in the base's dtype, where the merged model
        is checked to be the stacked one: in bfloat16 merging rounds them, so use float32 where it matters.
        """
        base = self.load_base()
        return self._with_options(base if self.lora is None else self._fresh_adapter(self._freeze(base, self.adapters)))

    def _with_options(self, net: nn.Module) -> nn.Module:
        check_cross_entropy(net, self.cross_entropy)
        take_shortcuts(net, self.shortcuts)
        if self.compile is not None:
            # With and without the trained adapter, gradients, a mask, a second row: a graph each, and past torch's 8 nothing is compiled.
            torch.compiler.config.recompile_limit = max(GRAPHS, torch.compiler.config.recompile_limit)
            # Layer by layer: they are alike, so one is compiled for all, and lengths vary from batch to batch.
            for layer in net.modules():
                if isinstance(layer, GradientCheckpointingLayer):
                    layer.compile(backend=self.compile, dynamic=True)
        return net

    def _freeze(self, base: nn.Module, adapters: list[str]) -> nn.Module:
        if self.quantization or not adapters:
            return stack(base, adapters)
        try:
            return merge(base, adapters, self.load_tokenizer()(TEXT, add_special_tokens=False)["input_ids"])
        except UnequalMerge as why:
            rank_zero_info(f"Earlier adapters stay stacked and are not merged: {why}.")
        del base
        return stack(self.load_base(), adapters)

    def _fresh_adapter(self, base: nn.Module) -> nn.Module:
        assert self.lora is not None
        config = self.lora.peft_config()
        with torch.random.fork_rng():
            torch.manual_seed(self.seed or 0)
            return fresh_lora(base, config)


def save_result(net: nn.Module, tokenizer: PreTrainedTokenizerBase, run_folder: Path, write: bool = True) -> None:
    """Writes the run's result: `adapter/` (PEFT format) with LoRA, `model/` (weights and tokenizer) without.

    Args:
        net: the network; all processes must call this with theirs, because they may hold its shards.
        tokenizer: its tokenizer.
        run_folder: where the result goes.
        write: whether this process writes.
    """
    # The whole adapter, also where an objective trains a part of it only: its files are read as a whole.
    names = {name for name, _ in net.named_parameters() if f".{TRAINABLE}." in f"{name}."} if isinstance(net, PeftModel) else None
    weights = gathered(net, names, keep=write)
    if not write:
        return
    with quiet(), writing(run_folder):
        if isinstance(net, PeftModel):
            net.save_pretrained(str(run_folder / "adapter"), save_embedding_layers=False, selected_adapters=[TRAINABLE], state_dict=weights)
        else:
            # Plain transformers is to stop where this package's generation does: also at an end of turn that a chat template brought along.
            net.generation_config.eos_token_id = end_tokens(net, tokenizer)  # type: ignore[union-attr]
            net.save_pretrained(run_folder / "model", state_dict=weights)  # type: ignore[operator]
            tokenizer.save_pretrained(run_folder / "model")


@functools.lru_cache(maxsize=8)
def _positions(model: str, revision: str | None) -> int | None:
    with reading(model):
        return positions(AutoConfig.from_pretrained(model, revision=revision, trust_remote_code=False))
