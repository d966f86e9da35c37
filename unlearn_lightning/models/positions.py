"""How many tokens a model can tell apart by their place: what is longer would be read at places that were never trained.

positions(AutoConfig.from_pretrained("openai-community/gpt2"))        # 1024
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

# Kinds of rotary embedding whose angles follow the longest row of a batch beyond their original length: a row's values would then
# depend on what it shares a batch with.
BATCH_DEPENDENT = ("dynamic", "longrope")


def positions(config: Any) -> int | None:
    """The longest sequence that a model's positions are made for, tokens; None for models without positions (ALiBi, state spaces).

    Args:
        config: the model's transformers config.
    """
    text = config.get_text_config()
    own = getattr(text, "max_position_embeddings", None)
    if not isinstance(own, int) or own < 1 or getattr(text, "alibi", False):
        return None
    return min([_scaled(own, rope) for rope in _ropes(text)], default=own)


def _ropes(config: Any) -> list[Mapping[str, Any]]:
    """The rotary embeddings' parameters: one set, or one for each kind of layer."""
    found = getattr(config, "rope_parameters", None) or {}
    nested = [value for value in found.values() if isinstance(value, Mapping)]
    return nested or ([found] if found else [])


def _scaled(own: int, rope: Mapping[str, Any]) -> int:
    original, kind = rope.get("original_max_position_embeddings") or own, rope.get("rope_type")
    if kind in BATCH_DEPENDENT:
        return min(own, original)
    # Where YaRN is switched on in a config, its max_position_embeddings often stays what it was.
    return max(own, int(original * (rope.get("factor") or 1))) if kind == "yarn" else own
