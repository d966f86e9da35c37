"""Adapters within one network: loaded from run folders, frozen below a trainable one, and switched off for the reference.

net = load_adapter(base, "runs/tofu/adapter", trainable=False, name=f"{FROZEN}0")
with reference_mode(net):          # the frozen starting model of unlearning
    ...
"""

from __future__ import annotations

import unlearn_lightning.inference.hub_kernels  # isort: skip  # noqa: F401

import warnings
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, PeftModel, get_peft_model, get_peft_model_state_dict
from safetensors import SafetensorError, safe_open
from torch import nn

from unlearn_lightning.models.base_model import differences
from unlearn_lightning.models.reading import check_file

WEIGHTS = "adapter_model.safetensors"
# Names of the adapters within PEFT: the trainable one, and the frozen ones below it, numbered.
TRAINABLE = "default"
FROZEN = "frozen"
# Where a network keeps the names of the weights that `train_only` chose.
CHOSEN = "trained_alone"
# PEFT reads this property of transformers whenever it wraps a model, and a user can do nothing about it.
warnings.filterwarnings("ignore", ".*`is_gradient_checkpointing` is deprecated.*", FutureWarning)


def reference_mode(net: nn.Module) -> Any:
    """Context in which `net` is the frozen starting model of unlearning: the trainable adapter off, no dropout, no gradient."""
    if not isinstance(net, PeftModel):
        raise TypeError("Full fine-tuning has no adapter to switch off: its reference log-likelihoods are computed before step 1.")
    return _reference(net)


@contextmanager
def _reference(net: PeftModel) -> Iterator[None]:
    frozen = [name for name in net.peft_config if name != TRAINABLE]
    with torch.no_grad(), eval_mode(net):
        if not frozen:
            with net.disable_adapter():
                # FSDP2 looks at this when it first gathers a layer, and would never again give its weights a gradient.
                _trainable_alone(net)
                yield
            _trainable_alone(net)
            return
        # Switching all adapters off would give the *pretrained* model here: the frozen ones are stacked and not merged.
        activate(net, frozen)
        try:
            yield
        finally:
            activate(net, [*frozen, TRAINABLE])


def activate(net: PeftModel, names: list[str]) -> None:
    """Switches on these adapters; the trainable one keeps its gradients and the others get none, which PEFT would change."""
    tuner: Any = net.base_model
    tuner.set_adapter(names)
    _trainable_alone(net)


def _trainable_alone(net: PeftModel) -> None:
    chosen = net.__dict__.get(CHOSEN)
    for name, parameter in net.named_parameters():
        parameter.requires_grad = f".{TRAINABLE}." in f"{name}." if chosen is None else name in chosen


def train_only(net: nn.Module, names: Collection[str]) -> None:
    """Freezes all weights but these, for good: the choice also holds after `reference_mode`.

    Args:
        net: with its trainable weights, of which some may be frozen.
        names: of weights that are trainable, as `named_parameters` has them.
    """
    net.__dict__[CHOSEN] = frozenset(names)
    for name, parameter in net.named_parameters():
        parameter.requires_grad = name in names


@contextmanager
def eval_mode(net: nn.Module) -> Iterator[None]:
    """Dropout off, and the former mode restored afterwards."""
    training = net.training
    net.eval()
    try:
        yield
    finally:
        net.train(training)


def load_adapter(base: nn.Module, folder: str, trainable: bool, name: str = TRAINABLE) -> PeftModel:
    """Adds the adapter in a folder, under a name, to a base model or to a network that has some.

    Raises:
        FileNotFoundError: there is none.
        ValueError: it does not fit.
    """
    if not (Path(folder) / "adapter_config.json").is_file():
        hint = " It holds full weights: set backbone.model to it." if (Path(folder) / "config.json").is_file() else ""
        raise FileNotFoundError(f"No adapter in {folder} (no adapter_config.json).{hint} The run that makes it must finish first.")
    if not (Path(folder) / WEIGHTS).is_file():
        raise FileNotFoundError(f"The adapter in {folder} has no {WEIGHTS}. Other formats are pickles, which are never read: convert it.")
    for file in (WEIGHTS, "adapter_config.json"):
        check_file(Path(folder) / file)
    try:
        if isinstance(base, PeftModel):
            base.load_adapter(folder, name, is_trainable=trainable)
            net = base
        else:
            net = PeftModel.from_pretrained(base, folder, adapter_name=name, is_trainable=trainable)
    except (RuntimeError, ValueError, KeyError, TypeError, AttributeError, ImportError, SafetensorError) as error:
        lines = str(error).splitlines() or [type(error).__name__]
        why = next((line.strip() for line in lines if "size mismatch" in line), lines[0])
        raise ValueError(MISFIT.format(folder=folder, why=why)) from error
    # PEFT warns at most where the network or the file lacks a layer, so that this is checked here.
    with safe_open(Path(folder) / WEIGHTS, "pt") as saved:
        there, needed = set(saved.keys()), set(get_peft_model_state_dict(net, adapter_name=name, save_embedding_layers=False))
    if said := differences({"missing": needed - there, "unexpected": there - needed}):
        raise ValueError(MISFIT.format(folder=folder, why=said))
    return net


MISFIT = "The adapter in {folder} does not fit this backbone ({why}). Use the backbone it was trained on; adapter_config.json names it."


def fresh_lora(base: nn.Module, config: LoraConfig) -> PeftModel:
    """A new adapter on a model, or above its frozen ones, in training mode.

    Raises:
        ValueError: a name of `target_modules` is none of the model's modules; PEFT itself leaves such a name out where others fit.
    """
    there = [name for name, _ in base.named_modules()]
    asked = config.target_modules if isinstance(config.target_modules, set | list | tuple) else []
    wrong = next((name for name in sorted(asked) if not any(f".{module}".endswith(f".{name}") for module in there)), None)
    if wrong is not None:
        linear = sorted({name.rpartition(".")[2] for name, module in base.named_modules() if isinstance(module, nn.Linear)})
        raise ValueError(
            f"backbone.lora.target_modules names {wrong!r}, and the model has no module of that name. Its linear layers are "
            f"{', '.join(linear)}; all-linear adapts all but the head."
        )
    if isinstance(base, PeftModel):
        base.add_adapter(TRAINABLE, config)
        return trainable_lora(base)
    return trainable_lora(get_peft_model(base, config))


def trainable_lora(net: PeftModel) -> PeftModel:
    """The network in training mode with all its adapters on; the trainable one in float32, the others frozen."""
    if len(net.peft_config) > 1:
        activate(net, [*(name for name in net.peft_config if name != TRAINABLE), TRAINABLE])
    trainable = [parameter for parameter in net.parameters() if parameter.requires_grad]
    assert trainable, "no trainable adapter weights"
    for parameter in trainable:
        parameter.data = parameter.data.float()
    return net.train()
