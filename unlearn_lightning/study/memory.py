"""How much memory one device needs for a training step, from the real modules, without that memory: two steps on fake tensors.

    need = step_memory(backbone, Step(length=512, micro_batch_size=4))
    need.total, need.weights, need.activations                      # bytes

The network, its adapters, the loss and the optimizer are those that train; fake tensors pass through them, and every tensor is counted
while it lives (fake_network.py).
"""

from __future__ import annotations

import unlearn_lightning.inference.hub_kernels  # isort: skip  # noqa: F401

import dataclasses
import math
import warnings
from dataclasses import dataclass
from typing import Any

import torch
from peft import PeftModel
from torch import Tensor

from unlearn_lightning.inference.cross_entropy import selected_log_probs
from unlearn_lightning.models.adapters import reference_mode
from unlearn_lightning.models.backbone import Backbone
from unlearn_lightning.schedule import PaperAdamW
from unlearn_lightning.study.estimate import Estimator
from unlearn_lightning.study.fake_network import Living, fake_mode, fake_network

# Decoder layers are alike, and memory grows by the same amount with each: two sizes give all others.
FEW, MORE = 2, 3


@dataclass(frozen=True)
class Step:
    """What one device does between two updates.

    Args:
        length: tokens per example, padding included.
        response: of these, tokens whose likelihood is computed; the vocabulary projection runs on them alone.
        micro_batch_size: examples at once.
        autocast: computes in bfloat16 (`precision: bf16-mixed`).
        devices: that share the work.
        sharded: by FSDP2; otherwise each device has a copy of the model (DDP).
    """

    length: int = 512
    response: int = 256
    micro_batch_size: int = 4
    autocast: bool = False
    devices: int = 1
    sharded: bool = False

    def __post_init__(self) -> None:
        if not 0 < self.response <= self.length or min(self.micro_batch_size, self.devices) < 1:
            raise ValueError("length, response, micro_batch_size and devices must be at least 1, and response at most length.")


@dataclass(frozen=True)
class Memory:
    """Bytes on one device at the worst moment of a step.

    Attributes:
        weights: what is frozen, or the whole model where all of it is trained.
        adapter: the trained adapter's weights.
        gradients: under DDP twice, as it keeps them in buckets, too.
        optimizer: AdamW's two averages.
        activations: what the backward pass needs, logits, and temporary tensors, in the forward and backward pass.
        update: temporary tensors of the optimizer's update, which comes after it.
        gathered: FSDP2's whole weights: embeddings and head, and three decoder layers (in use, under way, and the latter's buffer).
        loading: what must fit once before training; more than all of the above only where FSDP2 cuts weights that bitsandbytes
            quantised on this device.
    """

    weights: int
    adapter: int
    gradients: int
    optimizer: int
    activations: int
    update: int = 0
    gathered: int = 0
    loading: int = 0

    @property
    def total(self) -> int:
        """What stays, and what takes most of the two halves of a step; or the loading where that takes more."""
        stays = self.weights + self.adapter + self.gradients + self.optimizer
        return max(self.loading, stays + max(self.gathered + self.activations, self.update))

    def plus(self, other: Memory, times: int) -> Memory:
        """Part by part."""
        return Memory(*(a + times * b for a, b in zip(dataclasses.astuple(self), dataclasses.astuple(other), strict=True)))


def step_memory(backbone: Backbone, step: Step, estimator: Estimator | None = None) -> Memory:
    """Memory of a step of unlearning with a reference, the most expensive of this package; fine-tuning needs no more.

    Raises:
        ValueError: the model's architecture is unknown.
    """
    estimator = estimator or Estimator()
    config = estimator.architecture(dataclasses.asdict(backbone))
    if config is None:
        raise ValueError(estimator.notes[-1])
    narrow = step.sharded and step.autocast and backbone.lora is None
    if narrow:
        # FSDP2 gathers trained float32 weights in bfloat16, so that autocast has nothing to convert, and to keep.
        backbone = dataclasses.replace(backbone, dtype="bfloat16")
    few, more = (simulate(backbone, config, layers, step) for layers in (FEW, MORE))
    return spread(few, more, config.get_text_config().num_hidden_layers, step, loads_whole=backbone.quantization is not None, narrow=narrow)


def spread(few: Memory, more: Memory, layers: int, step: Step, loads_whole: bool = False, narrow: bool = False) -> Memory:
    """Extrapolates from models of FEW and MORE layers on one device to a model of all layers, on one of the step's devices.

    Args:
        few: the memory that the model of FEW layers takes, bytes.
        more: the memory that the model of MORE layers takes, bytes.
        layers: the number of layers of the whole model.
        step: the step whose devices share the memory.
        loads_whole: whether each device holds all weights before they are cut.
        narrow: few and more are in bfloat16, while shards are in float32 and so are gradients when they are added up.
    """
    layer = more.plus(few, -1)
    ends, alone = few.plus(layer, -FEW), few.plus(layer, layers - FEW)
    if step.devices == 1:
        return alone
    if not step.sharded:
        return dataclasses.replace(alone, gradients=2 * alone.gradients)
    width = 2 if narrow else 1
    names = ("weights", "adapter", "gradients", "optimizer", "update")
    shares = {name: math.ceil(width * getattr(alone, name) / step.devices) for name in names}
    added_up = width if narrow else 0
    ends_whole, layer_whole = (part.weights + part.adapter + (1 + added_up) * part.gradients for part in (ends, layer))
    loading = alone.weights + alone.adapter if loads_whole else 0
    return Memory(**shares, activations=alone.activations, gathered=ends_whole + 3 * layer_whole, loading=loading)


def simulate(backbone: Backbone, config: Any, layers: int, step: Step) -> Memory:
    """Two steps of a model with so many layers, on one device; the second one meets the first one's gradients and averages."""
    mode = fake_mode()
    with warnings.catch_warnings(action="ignore"):
        net = fake_network(backbone, config, layers, mode)
        trained = [parameter for parameter in net.parameters() if parameter.requires_grad]
        optimizer = PaperAdamW(trained)
        optimizer.defaults["foreach"] = optimizer.param_groups[0]["foreach"] = True  # as it chooses on GPUs
        with mode, Living([*net.parameters(), *net.buffers()]) as living:
            for _ in range(2):
                living.peak = living.now
                passes(net, optimizer, step)
                in_passes, living.peak = living.peak, living.now
                optimizer.step()
    everything = sum(map(_bytes, [*net.parameters(), *net.buffers()]))
    adapter = sum(map(_bytes, trained)) if backbone.lora else 0
    states = sum(_bytes(value) for state in optimizer.state.values() for value in state.values())
    gradients = sum(_bytes(parameter.grad) for parameter in trained if parameter.grad is not None)
    stays = everything + states + gradients
    return Memory(everything - adapter, adapter, gradients, states, in_passes - stays, max(0, living.peak - stays))


def passes(net: Any, optimizer: torch.optim.Optimizer, step: Step) -> None:
    """A step but for its update, as Lightning makes it: forward, clear the last gradients, backward."""
    rows, columns = step.micro_batch_size, step.length
    tokens = torch.zeros((rows, columns), dtype=torch.long)
    # As transformers makes it of the padding mask.
    mask = torch.ones((rows, 1, columns, columns), dtype=torch.bool)

    def log_likelihood() -> Tensor:
        output = net(input_ids=tokens, attention_mask=mask, position_ids=tokens, logits_to_keep=step.response, use_cache=False)
        return selected_log_probs(output.logits, tokens[:, -step.response :]).sum(-1)

    with torch.autocast("cpu", torch.bfloat16, enabled=step.autocast):
        own, reference = log_likelihood(), torch.zeros(rows)
        if isinstance(net, PeftModel):
            with reference_mode(net):
                reference = log_likelihood()
        loss = (own - reference).mean()
    optimizer.zero_grad()
    loss.backward()


def _bytes(tensor: Tensor) -> int:
    return tensor.numel() * tensor.element_size()
