"""What a decoder layer says at the response tokens, and which weights a part of the decoder layers has.

hidden = layer_output(net, 3, batch)                              # (N, d), with gradients
names = parameters_of(net, [1, 2, 3], "down_proj")                # as `net.named_parameters()` has them
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

from torch import Tensor, nn
from transformers.modeling_layers import GradientCheckpointingLayer

from unlearn_lightning.data import Batch, Encoded
from unlearn_lightning.modules.reference_logits import LIMIT


def layer_output(net: Any, layer: int, batch: Batch) -> Tensor:
    """(N, d) the residual stream behind a decoder layer at the batch's N response tokens, row by row.

    Args:
        net: a transformers causal LM, with or without PEFT adapters.
        layer: its number from 0; not the last one, whose output transformers gives normalised.
        batch: B rows of T columns.
    """
    found = net(
        input_ids=batch.input_ids, attention_mask=batch.attention_mask, logits_to_keep=1, use_cache=False, output_hidden_states=True
    )
    # The first is the embeddings'.
    hidden: Tensor = found.hidden_states[layer + 1]
    return hidden[batch.response_mask]


def decoder_layers(net: nn.Module) -> list[str]:
    """The names of the decoder layers, from the first to the last."""
    return [name for name, module in net.named_modules() if isinstance(module, GradientCheckpointingLayer)]


def parameters_of(net: nn.Module, layers: Collection[int], part: str) -> list[str]:
    """The names of the trainable weights that lie in some decoder layers.

    Args:
        net: with its trainable weights.
        layers: their numbers, from 0.
        part: of the name below the layer, such as down_proj; empty for all.
    """
    prefixes = [f"{name}." for number, name in enumerate(decoder_layers(net)) if number in layers]
    places = ((name, next((prefix for prefix in prefixes if name.startswith(prefix)), None)) for name, p in _trainable(net))
    return [name for name, prefix in places if prefix is not None and part in name.removeprefix(prefix)]


def _trainable(net: nn.Module) -> list[tuple[str, nn.Parameter]]:
    return [(name, parameter) for name, parameter in net.named_parameters() if parameter.requires_grad]


def check_activations(objective: str, examples: Sequence[Encoded], width: int) -> None:
    """Refuses activations that would not fit, before anything is computed.

    Raises:
        ValueError: those of all response tokens take more than `LIMIT` bytes.
    """
    tokens = sum(len(example.response_ids) for example in examples)
    if (size := tokens * width * 4) > LIMIT:
        raise ValueError(
            f"{objective} compares activations with the starting model's. Full fine-tuning would have to keep {tokens:,} response tokens "
            f"of the retain data times {width:,} units, {size / 2**30:.1f} GiB; {LIMIT / 2**30:.0f} GiB at most are kept. Train an adapter "
            "(backbone.lora), which needs none, or retain fewer examples (retain.data.train_examples)."
        )
