"""Which models take an attention mask of ours, and in which form: packed candidates and decoding slots need one.

if takes_masks(net):
    net(input_ids=ids, attention_mask=attention_mask(net, visible), position_ids=positions)
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

PLAIN = "full_attention"


def implementation(config: Any) -> str:
    """How a network with this configuration computes attention, such as sdpa or eager.

    transformers 5.23 has a public way to set it (`set_attn_implementation`) and none to read it.
    """
    return str(config._attn_implementation)


def takes_masks(net: Any) -> bool:
    """Whether every layer attends to all earlier tokens, and the attention implementation takes a (B, 1, Q, K) mask."""
    config = net.config.get_text_config()
    kinds = getattr(config, "layer_types", None)
    plain = set(kinds) == {PLAIN} if kinds else getattr(config, "sliding_window", None) is None
    return plain and implementation(config) in ("sdpa", "eager")


def attention_mask(net: Any, visible: Tensor) -> Tensor:
    """The mask in the form the model's attention takes.

    Args: visible: (B, 1, Q, K) bool, true where query q sees key k; every query sees at least one.   Returns: (B, 1, Q, K).
    """
    if implementation(net.config) == "sdpa":
        return visible
    return torch.zeros(visible.shape, dtype=net.dtype, device=visible.device).masked_fill(~visible, torch.finfo(net.dtype).min)
