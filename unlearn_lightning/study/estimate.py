"""What a planned run will take, before anything is trained: examples, tokens, optimizer steps, FLOPs, bytes on disk, hours.

    with quick_hub():
        estimator = Estimator()
        estimator.estimate(run)          # RunCost(examples=4500, epoch_tokens=..., tokens=..., steps=36, flops=..., ...)
    estimator.notes                      # what was assumed, in words

Nothing is guessed in silence: what could not be read is assumed, marked as such in the estimate, and told in the notes. Probes (which
measure, and generate) are left out, and so are attention scores and optimizer updates, which are small against the weights.
"""

from __future__ import annotations

import unlearn_lightning.inference.hub_kernels  # isort: skip  # noqa: F401

import json
import math
import warnings
from dataclasses import dataclass
from importlib import import_module
from typing import Any

import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedTokenizerBase

from unlearn_lightning.data import StageData
from unlearn_lightning.data.examples import lengths_of
from unlearn_lightning.models.backbone import Backbone
from unlearn_lightning.models.places import located
from unlearn_lightning.models.scratch import Scratch, build_model
from unlearn_lightning.runs.run_key import texts_alone
from unlearn_lightning.sources.readers import HubError
from unlearn_lightning.study.architectures import ARCHITECTURES, architecture
from unlearn_lightning.study.run import Run

# Public data sets that cannot be read: rows, and mean prompt and response as UTF-8 bytes / 4.
DATA_SETS = {"openai/gsm8k/main": (7473, 121), "locuslab/TOFU/full": (4000, 60), "PrincetonPLI/Instruct-SkillMix-SDA": (8000, 678)}
OTHER_DATA = (1000, 256)
BYTES_PER_TOKEN = 4
BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}


@dataclass(frozen=True)
class Shape:
    """The size of a model and its adapter.

    Attributes:
        parameters: of the base model.
        multiplied: of those, the ones each token is multiplied with: all but an embedding table that is no output layer too.
        adapter: parameters of the trainable adapter; 0 where all weights are trained.
    """

    parameters: int
    multiplied: int
    adapter: int

    def flops(self, tokens: int, reference_tokens: int = 0) -> int:
        """FLOPs of training, 2 per parameter and token for each of the passes that are needed.

        All weights: 6 N (forward, backward through activations, gradients of weights). Adapter: 4 N + 6 A, as the frozen weights need
        no gradient. The reference of an unlearning objective adds a forward pass, 2 N.

        Args: tokens: trained on, all epochs.   reference_tokens: read by the frozen starting model.   Returns: FLOPs.
        """
        per_token = 4 * self.multiplied + 6 * self.adapter if self.adapter else 6 * self.multiplied
        return per_token * tokens + 2 * self.multiplied * reference_tokens


@dataclass(frozen=True)
class Count:
    """A stage's training data: examples, tokens of prompts and responses (one epoch), and whether the tokens are estimated."""

    examples: int
    tokens: int
    estimated: bool = False


@dataclass(frozen=True)
class RunCost:
    """What a run costs: examples, tokens, steps, operations and bytes.

    Attributes:
        examples: training examples.
        epoch_tokens, tokens: prompt and response tokens of one epoch, and of the whole run with its retain term; without padding.
        steps: optimizer steps.
        flops: of training, without probes; null where the model's shape is unknown, as are the bytes.
        result_bytes: the adapter's weights, or the model's where all are trained.
        model_bytes: what the whole model's weights would take.
        estimated: the token counts are not the tokenizer's.
    """

    examples: int
    epoch_tokens: int
    tokens: int
    steps: int
    flops: int | None
    result_bytes: int | None
    model_bytes: int | None
    estimated: bool


def optimizer_steps(examples: int, batch_size: int, max_epochs: int | None, max_steps: int, limit: int | float | None = None) -> int:
    """Optimizer steps of a run; -1 stands for no limit of epochs or steps, and `limit` is trainer.limit_train_batches.

    Raises:
        ValueError: neither epochs nor steps are limited.
    """
    per_epoch = math.ceil(examples / batch_size)
    if limit is not None:
        per_epoch = min(per_epoch, limit) if isinstance(limit, int) else int(per_epoch * limit)
    limits = [per_epoch * max_epochs] if max_epochs is not None and max_epochs >= 0 else []
    limits += [max_steps] if max_steps >= 0 else []
    if not limits:
        raise ValueError("This run would train for ever: set trainer.max_epochs or trainer.max_steps.")
    return min(limits)


class Estimator:
    """Estimates runs; data, tokenizers and models are looked at once each.

    Attributes:
        notes: what was assumed or could not be read, in words.
    """

    def __init__(self) -> None:
        self.notes: list[str] = []
        self._known: dict[str, Any] = {}

    def estimate(self, run: Run) -> RunCost:
        """What one run of the tree will take; its parents need not be there."""
        config, origin = run.config, run
        while origin.parents:
            origin = origin.parents[0]
        # A run after a whole model starts from a folder that is not there yet; shape and tokenizer are those of the tree's root.
        base, lora = origin.config["model"]["init_args"]["backbone"], config["model"]["init_args"]["backbone"]["lora"]
        tokenizer = {name: value for name, value in base.items() if name != "seed"}
        count = self._once(self.count, texts_alone(config["data"]), tokenizer)
        batch, trainer = config["data"]["init_args"]["batch_size"], config["trainer"]
        steps = optimizer_steps(count.examples, batch, trainer["max_epochs"], trainer["max_steps"], trainer["limit_train_batches"])
        tokens = round(count.tokens * steps / math.ceil(count.examples / batch))
        kept, reference = self._retain_tokens(config, tokenizer, steps)
        reference += self._reference_tokens(config, lora, count.tokens, tokens)
        tokens += kept
        shape: Shape | None = self._once(self.shape, base, lora)
        flops = result = whole = None
        if shape is not None:
            flops = shape.flops(tokens, reference)
            whole = shape.parameters * BYTES[base["dtype"]]
            result = shape.adapter * BYTES["float32"] if lora else whole
        return RunCost(count.examples, count.tokens, tokens, steps, flops, result, whole, count.estimated)

    def _once(self, function: Any, *settings: Any) -> Any:
        key = json.dumps([function.__name__, *settings], sort_keys=True, default=str)
        if key not in self._known:
            self._known[key] = function(*settings)
        return self._known[key]

    def _note(self, text: str) -> None:
        if text not in self.notes:
            self.notes.append(text)

    def _retain_tokens(self, config: dict[str, Any], backbone: dict[str, Any], steps: int) -> tuple[int, int]:
        """Tokens of a retain term's batches, trained on and read without gradients, such as by the frozen starting model."""
        retain = config["model"]["init_args"].get("retain")
        if not retain:
            return 0, 0
        count, batch = self._once(self.count, texts_alone(retain["data"]), backbone), retain["data"]["init_args"]["batch_size"]
        if retain["loss"] == "subspace":
            # No batch of it is trained on; all of it is read once.
            return 0, count.tokens
        tokens = round(count.tokens * steps / math.ceil(count.examples / batch))
        self._note("Batches of a retain term are counted at their mean length.")
        kept = min(tokens, count.tokens) if config["model"]["init_args"]["backbone"]["lora"] is None else tokens
        return tokens, {"kl": tokens, "activations": kept}.get(retain["loss"], 0)

    def _reference_tokens(self, config: dict[str, Any], lora: Any, epoch_tokens: int, tokens: int) -> int:
        model = config["model"]
        if not getattr(_class(model["class_path"]), "needs_reference", False):
            return 0
        once = lora is None or model["init_args"]["cache_reference"]
        return epoch_tokens if once else tokens

    def count(self, data: dict[str, Any], backbone: dict[str, Any]) -> Count:
        """Counts a stage's training tokens, with the backbone's tokenizer where it can be had."""
        stage: StageData = _class(data["class_path"])(**data["init_args"])
        try:
            stage.rows("train")
        except HubError as error:
            usual, mean = DATA_SETS.get(error.name, OTHER_DATA)
            number = stage.train_examples or usual
            self._note(f"{_first_line(error)} It is estimated as {number} examples of {mean} tokens.")
            return Count(number, number * mean, True)
        tokenizer = self._once(self.tokenizer, backbone)
        if tokenizer is not None:
            try:
                with warnings.catch_warnings(action="ignore"):
                    encoded = stage.encoded_examples("train", tokenizer)
                facts = getattr(encoded, "facts", None)
                if cut := sum(example.truncated for example in encoded) if facts is None else facts["cut"]:
                    self._note(f"{cut} of {len(encoded)} {stage.stage_name} responses are cut at {stage.max_length} tokens.")
                return Count(len(encoded), sum(lengths_of(encoded)))
            except ValueError as error:
                self._note(f"The {stage.stage_name} data will fail in training: {error}")
        self._note(f"Tokens of {stage.stage_name} are estimated: UTF-8 bytes / {BYTES_PER_TOKEN}, without those of the chat template.")
        texts = (stage.system_prompt + e.prompt + e.response for e in stage.each_example("train"))
        sizes = [min(stage.max_length, math.ceil(len(text.encode()) / BYTES_PER_TOKEN)) for text in texts]
        return Count(len(sizes), sum(sizes), True)

    def tokenizer(self, backbone: dict[str, Any]) -> PreTrainedTokenizerBase | None:
        """The backbone's tokenizer; None when it cannot be had, which is noted."""
        try:
            return _backbone(backbone).load_tokenizer()
        except Exception as error:
            self._note(f"The tokenizer of {backbone['model'] or 'the scratch model'} cannot be read ({_first_line(error)}).")
            return None

    def shape(self, backbone: dict[str, Any], lora: dict[str, Any] | None) -> Shape | None:
        """Counts the parameters of the real modules, without memory for them; None when the architecture is unknown, which is noted."""
        config = self.architecture(backbone)
        if config is None:
            return None
        with torch.device("meta"), warnings.catch_warnings(action="ignore"):
            net: Any = AutoModelForCausalLM.from_config(config)
            parameters, table = sum(p.numel() for p in net.parameters()), net.get_input_embeddings().weight
            tied = net.get_output_embeddings().weight is table
            if lora is not None:
                net = get_peft_model(net, LoraConfig(r=lora["rank"], target_modules=lora["target_modules"], task_type="CAUSAL_LM"))
            adapter = sum(p.numel() for p in net.parameters() if p.requires_grad) if lora is not None else 0
        return Shape(parameters, parameters if tied else parameters - table.numel(), adapter)

    def architecture(self, backbone: dict[str, Any]) -> Any:
        """The transformers config of the backbone's model; None when it is unknown, which is noted."""
        name = backbone["model"]
        if name is None:
            tokenizer = self._once(self.tokenizer, backbone)
            # Without its corpus the size of the vocabulary is the one that was asked for.
            vocabulary: Any = tokenizer or _Vocabulary(backbone["scratch"]["vocab_size"])
            with torch.device("meta"):
                scratch: Any = build_model(_backbone(backbone).scratch, vocabulary, 0)  # type: ignore[arg-type]
            return scratch.config
        try:
            config = AutoConfig.from_pretrained(located(name), revision=backbone["revision"], trust_remote_code=False)
            self._note(f"Shape of {name}: from its config.json.")
        except Exception as error:
            if name not in ARCHITECTURES:
                self._note(f"Shape of {name}: unknown ({_first_line(error)}), so there are no FLOPs, bytes and hours.")
                return None
            config = architecture(name)
            self._note(f"Shape of {name}: from the built-in table, as its config.json cannot be read ({_first_line(error)}).")
        return config


class _Vocabulary(list[Any]):
    """Stands in for a vocabulary of which only the size is known."""

    bos_token_id = eos_token_id = pad_token_id = None

    def __init__(self, size: int) -> None:
        super().__init__(range(size))


def _backbone(settings: dict[str, Any]) -> Backbone:
    scratch = settings["scratch"]
    names = {name: settings[name] for name in ("model", "tokenizer", "chat_template_from", "template_date", "revision")}
    return Backbone(**names, scratch=Scratch(**scratch) if scratch else None)


def _class(class_path: str) -> Any:
    module, _, name = class_path.rpartition(".")
    return getattr(import_module(module), name)


def _first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0][:120] if str(error).strip() else type(error).__name__
