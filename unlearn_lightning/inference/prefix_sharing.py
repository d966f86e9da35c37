"""What a forward pass may leave out, because no likelihood that is asked for depends on it.

    with abridged(net, {"input_ids": ids}, places) as (inputs, places):     # places: where the next token's likelihood is wanted
        net(**inputs, logits_to_keep=places, use_cache=False)

- The beginning that all rows share, such as a chat template's header with its system prompt: it is computed once, and the rest of each
  row attends to its cached keys and values, through which gradients flow.
- In the last decoder layer the queries, output projection and MLP of all other places: nothing reads what it says there.

Values and gradients are the plain computation's, to rounding. Where that is not certain nothing is left out: see `possible`.
"""

from __future__ import annotations

import unlearn_lightning.inference.hub_kernels  # isort: skip  # noqa: F401

import re
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from bitsandbytes.nn import Linear8bitLt
from torch import Tensor, nn
from transformers import DynamicCache
from transformers.modeling_layers import GradientCheckpointingLayer

from unlearn_lightning.inference.attention import takes_masks
from unlearn_lightning.inference.fast_paths import known, settled_length, sharded

Inputs = dict[str, Any]
# A shared beginning of so large a share of the rows, and of so many tokens in all, is worth a pass of its own.
SHARE, TOKENS = 1 / 16, 64
# Settings that, above 0, have a model in training draw random numbers; those of heads that are not there do not count.
DRAWS = re.compile("^(?!classifier|summary).*(drop|jitter)")


@contextmanager
def abridged(net: Any, inputs: Inputs, places: Tensor) -> Iterator[tuple[Inputs, Tensor]]:
    """Context in which a pass of the yielded inputs gives the same at the yielded places, with less work.

    Args:
        net: a transformers causal LM, with or without PEFT adapters.
        inputs: of its forward pass; `input_ids` (B, T), and a mask and positions where rows are padded on the left.
        places: (B, T) bool.

    Yields:
        Inputs, and places (B, t) with t at most T.
    """
    with ExitStack() as stack:
        if possible(net):
            # With shards all processes must make the same passes, whatever their rows share.
            if len(inputs) == 1 and not sharded(net) and takes_masks(net):
                inputs, places = after_shared_beginning(net, inputs["input_ids"], places)
            if parts := _spared_parts(net):
                stack.enter_context(_at_places_only(parts, places))
        yield inputs, places


def possible(net: Any) -> bool:
    """Whether shortcuts are known to leave the result as it is, and were not switched off.

    They are for the tested architectures alone (fast_paths.py), with LoRA or without adapters: they change gradients too, which no
    comparison at a run's start would show. Not where random numbers are drawn while training, as others would be; where layers are
    compiled, or computed again in the backward pass, as either would miss what is arranged here; with rotations that depend on a pass's
    length; and with int8 weights, whose outlier columns depend on all tokens that pass at once.
    """
    config = net.config.get_text_config()
    if not known(net) or settled_length(net) is not None or not getattr(net, "takes_shortcuts", True):
        return False
    if net.training and any(value for name, value in vars(config).items() if DRAWS.search(name)):
        return False
    return all(_is_plain(module) for module in net.modules())


def _is_plain(module: Any) -> bool:
    """Whether a part of the network draws nothing, and does all it does in the forward pass, token by token."""
    if isinstance(module, GradientCheckpointingLayer) and module.gradient_checkpointing and module.training:
        return False
    draws = isinstance(module, nn.Dropout) and module.p and module.training
    return not draws and not isinstance(module, Linear8bitLt) and not is_compiled(module)


def is_compiled(module: nn.Module) -> bool:
    """Says whether `module.compile()` was called, by us or by somebody else. torch 2.13 keeps that under this private name alone."""
    return module._compiled_call_impl is not None


def take_shortcuts(net: Any, whether: bool) -> None:
    """Switches the shortcuts of a network on, as they are at first, or off."""
    net.takes_shortcuts = whether


def after_shared_beginning(net: Any, input_ids: Tensor, places: Tensor) -> tuple[Inputs, Tensor]:
    """Computes the rows' shared beginning, if it is worth it.

    Args: input_ids: (B, T), padded on the right.   places: (B, T).   Returns: inputs for what follows it, and its places.
    """
    same = (input_ids == input_ids[:1]).all(0) & ~places.any(0)
    # Something must follow it.
    length = int(same[:-1].long().cumprod(0).sum())
    rows, width = input_ids.shape
    if length < SHARE * width or length * (rows - 1) < TOKENS:
        return {"input_ids": input_ids}, places
    beginning, cache = DynamicCache(), DynamicCache()
    net(input_ids=input_ids[:1, :length], past_key_values=beginning, use_cache=True, logits_to_keep=torch.zeros_like(places[:1, :length]))
    for number, layer in enumerate(beginning.layers):
        kept: Any = layer
        cache.update(kept.keys.expand(rows, -1, -1, -1), kept.values.expand(rows, -1, -1, -1), number)
    return {"input_ids": input_ids[:, length:], "past_key_values": cache}, places[:, length:]


def _spared_parts(net: Any) -> list[nn.Module]:
    """Parts of the last decoder layer that treat each token by itself, and whose result matters at its own place only."""
    layer = getattr(net.get_decoder(), "layers", [None])[-1]
    attention, mlp = getattr(layer, "self_attn", None), getattr(layer, "mlp", None)
    found = (getattr(attention, "q_proj", None), getattr(attention, "o_proj", None), mlp)
    # A mixture of experts may count the tokens it sees.
    return [part for part in found if part is not None and not hasattr(part, "experts")]


@contextmanager
def _at_places_only(parts: list[nn.Module], places: Tensor) -> Iterator[None]:
    """Shows the parts the tokens at the places alone; at all others their result is 0."""
    index = places.flatten().nonzero().squeeze(1)

    def select(_: nn.Module, given: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        return (given[0].flatten(0, 1)[index][None], *given[1:])

    def put_back(_: nn.Module, __: Any, result: Tensor) -> Tensor:
        everywhere = result.new_zeros(places.numel(), result.shape[-1]).index_copy(0, index, result[0])
        return everywhere.view(*places.shape, -1)

    with ExitStack() as hooks:
        for part in parts:
            hooks.callback(part.register_forward_pre_hook(select).remove)
            hooks.callback(part.register_forward_hook(put_back).remove)
        yield
