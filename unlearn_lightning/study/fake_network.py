"""A network of fake tensors (torch's meta tensors that know their device), and a count of the storages that live.

    mode = fake_mode()
    net = fake_network(backbone, config, 2, mode)
    with mode, Living([*net.parameters(), *net.buffers()]) as living:
        ...                                                         # steps of training
    living.peak                                                     # bytes

Only bitsandbytes' layers, which need real weights, are stood in for.
"""

from __future__ import annotations

import unlearn_lightning.inference.hub_kernels  # isort: skip  # noqa: F401

import copy
import math
import weakref
from typing import Any

import torch
from lightning_utilities.core.apply_func import apply_to_collection
from peft import get_peft_model
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import AutoModelForCausalLM

from unlearn_lightning.models.adapters import FROZEN, trainable_lora
from unlearn_lightning.models.backbone import Backbone

# bitsandbytes' NF4 (Dettmers et al. 2023, arXiv:2305.14314): 4 bits, an 8-bit scale per 64 weights, a float32 scale per 256 of those.
BLOCK, SUPERBLOCK = 64, 256


def fake_network(backbone: Backbone, config: Any, layers: int, mode: FakeTensorMode) -> Any:
    """The backbone's network for unlearning with so many decoder layers, in training mode."""
    config = copy.deepcopy(config)
    # A model that sees images, too, keeps the shape of its decoder in a part of its configuration.
    text = config.get_text_config()
    text.num_hidden_layers = layers
    if getattr(text, "layer_types", None):
        text.layer_types = text.layer_types[:layers]
    with torch.device("meta"):
        net: Any = AutoModelForCausalLM.from_config(config, dtype=getattr(torch, backbone.dtype), attn_implementation="sdpa")
        if backbone.gradient_checkpointing:
            net.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
        if backbone.lora is not None:
            net = get_peft_model(net, backbone.lora.peft_config())
            if backbone.quantization:
                # Unlearning keeps the stage's adapter below its own.
                net.add_adapter(f"{FROZEN}0", backbone.lora.peft_config())
            net = trainable_lora(net)
        if backbone.quantization:
            head = net.get_output_embeddings()
            for module in list(net.modules()):
                for name, child in list(module.named_children()):
                    if type(child) is nn.Linear and child is not head and f".{name}" not in (".default", f".{FROZEN}0"):
                        setattr(module, name, Packed(child, backbone.quantization))
    _to_fakes(net, mode)
    return net.train()


def _to_fakes(net: nn.Module, mode: FakeTensorMode) -> None:
    # Tied weights stay one parameter.
    made = {parameter: nn.Parameter(_fake(mode, parameter.data), requires_grad=parameter.requires_grad) for parameter in net.parameters()}
    for module in net.modules():
        for name, parameter in list(module.named_parameters(recurse=False, remove_duplicate=False)):
            setattr(module, name, made[parameter])
        for name, buffer in list(module.named_buffers(recurse=False, remove_duplicate=False)):
            setattr(module, name, _fake(mode, buffer))


def fake_mode() -> FakeTensorMode:
    """The context in which operations on fake tensors run.

    FakeTensorMode is private in torch 2.13. The public meta device does not do: autocast knows no operation on it, and `bf16-mixed`
    would be counted as float32. PEFT cannot make its layers within this context, so that the network is made on the meta device first.
    """
    return FakeTensorMode(allow_non_fake_inputs=True)


def _fake(mode: FakeTensorMode, shape: Tensor) -> FakeTensor:
    return FakeTensor(mode, shape, torch.device("cpu"))


class Packed(nn.Module):
    """Stands in for bitsandbytes' quantised linear layers: as large, and unpacked into a temporary tensor for each use."""

    def __init__(self, linear: nn.Linear, kind: str) -> None:
        super().__init__()
        self.in_features, self.out_features = linear.in_features, linear.out_features
        count = linear.weight.numel()
        size = count // 2 if kind == "nf4" else count
        self.weight = nn.Parameter(torch.empty(size, dtype=torch.uint8), requires_grad=False)
        scales = count // BLOCK + 4 * math.ceil(count / BLOCK / SUPERBLOCK) if kind == "nf4" else 4 * linear.out_features
        self.register_buffer("scales", torch.empty(scales, dtype=torch.uint8))
        self.bias, self.dtype = linear.bias, linear.weight.dtype

    def forward(self, inputs: Tensor) -> Tensor:
        """As bitsandbytes: in the base's dtype, and back to the input's."""
        shape = (self.out_features, self.in_features)
        bias = None if self.bias is None else self.bias.to(self.dtype)
        output: Tensor = Unpacked.apply(inputs.to(self.dtype), self.weight, shape, bias)
        return output.to(inputs.dtype)


class Unpacked(torch.autograd.Function):
    """x W^T + b with a W that is unpacked, used and dropped, once in the forward and once in the backward pass."""

    @staticmethod
    def forward(ctx: Any, inputs: Tensor, packed: Tensor, shape: tuple[int, int], bias: Tensor | None) -> Tensor:
        """Multiplies by a weight that holds no memory; shapes are those of a linear layer."""
        ctx.shape = shape
        return nn.functional.linear(inputs, inputs.new_empty(shape), bias)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None, None]:
        """Gives the gradient of the inputs; packed weights and biases are frozen."""
        return gradient @ gradient.new_empty(ctx.shape), None, None, None


class Living(TorchDispatchMode):
    """Adds up the storages that live, from their creation to the moment Python and autograd let go of them; `peak` is the most.

    TorchDispatchMode lies in a private module of torch 2.13, and is the only way to see every tensor that is made.
    """

    def __init__(self, there: list[Tensor]) -> None:
        super().__init__()
        self.now = self.peak = 0
        self._known: dict[int, Any] = {}
        for tensor in there:
            self._add(tensor)

    def _add(self, tensor: Tensor) -> None:
        storage = tensor.untyped_storage()
        # A storage's Python object lives as long as the storage, however many tensors share it.
        key, size = id(storage), storage.nbytes()
        if key not in self._known:
            self._known[key] = weakref.ref(storage, lambda _: self._drop(key, size))
            self.now += size
            self.peak = max(self.peak, self.now)

    def _drop(self, key: int, size: int) -> None:
        self.now -= size
        self._known.pop(key, None)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        output = func(*args, **(kwargs or {}))
        apply_to_collection(output, Tensor, self._add)
        return output
