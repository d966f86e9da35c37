"""The key-value cache of a changing batch: a slot per row, each row as long as it is, nothing copied while rows grow.

    slots = Slots(rows=64, width=512, device=net.device)
    slots.fill(0, prefilled_cache, row=3, length=17)
    net(input_ids=last, attention_mask=slots.visible(1), position_ids=slots.lengths[:1, None], past_key_values=slots.cache, use_cache=True)
    slots.grow(1)

Rows 0 to n - 1 are in use; a forward pass of n rows writes each row's new token behind its last.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from transformers import Cache
from transformers.cache_utils import CacheLayerMixin


class Slots:
    """All layers' slots.

    Args:
        rows: how many.
        width: tokens that fit into each.
        device: of the model.

    Attributes:
        lengths: (rows,) tokens in each slot.
        cache: what the model is given.
    """

    def __init__(self, rows: int, width: int, device: torch.device) -> None:
        self.rows, self.width, self.device = rows, width, device
        self.lengths = torch.zeros(rows, dtype=torch.long, device=device)
        self.longest = [0] * rows
        self.layers: list[_SlotLayer] = []
        self.cache = Cache(layers=[])

    def fill(self, slot: int, cache: Any, row: int, length: int) -> None:
        """Puts the first `length` tokens of one row of transformers' own cache into a slot."""
        if not self.layers:
            self.layers = [_SlotLayer(self, layer.keys, layer.values) for layer in cache.layers]
            self.cache = Cache(layers=list(self.layers))
        for own, layer in zip(self.layers, cache.layers, strict=True):
            own.keys[slot, :, :length] = layer.keys[row, :, :length]
            own.values[slot, :, :length] = layer.values[row, :, :length]
        self.lengths[slot] = self.longest[slot] = length

    def move(self, origin: int, slot: int) -> None:
        """Copies one slot to another."""
        if origin == slot:
            return
        length = self.longest[origin]
        for layer in self.layers:
            layer.keys[slot, :, :length] = layer.keys[origin, :, :length]
            layer.values[slot, :, :length] = layer.values[origin, :, :length]
        self.lengths[slot] = self.longest[slot] = length

    def visible(self, n: int) -> Tensor:
        """(n, 1, 1, K) bool: what the first n rows' next tokens see, themselves included."""
        columns = torch.arange(max(self.longest[:n]) + 1, device=self.device)
        return (columns <= self.lengths[:n, None])[:, None, None]

    def grow(self, n: int) -> None:
        """Counts the token that each of the first n rows has got in every layer."""
        self.lengths[:n] += 1
        self.longest[:n] = [length + 1 for length in self.longest[:n]]


class _SlotLayer(CacheLayerMixin):
    """One layer's keys and values: (rows, heads, width, size)."""

    def __init__(self, slots: Slots, keys: Tensor, values: Tensor) -> None:
        super().__init__()
        self.slots = slots
        self.keys: Tensor = keys.new_zeros(slots.rows, keys.shape[1], slots.width, keys.shape[3])
        self.values: Tensor = values.new_zeros(slots.rows, values.shape[1], slots.width, values.shape[3])
        self.rows = torch.arange(slots.rows, device=slots.device)
        self.is_initialized = True

    def lazy_initialization(self, key_states: Tensor, value_states: Tensor) -> None:
        """Nothing is left to do."""

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        """Writes one token behind each row's last, and gives what attention looks at.   Args: (n, heads, 1, size)."""
        n = key_states.shape[0]
        at = self.rows[:n], slice(None), self.slots.lengths[:n]
        self.keys[at], self.values[at] = key_states.squeeze(2), value_states.squeeze(2)
        width = max(self.slots.longest[:n]) + 1
        return self.keys[:n, :, :width], self.values[:n, :, :width]

    def get_seq_length(self) -> int:
        """Tokens in the longest slot."""
        return max(self.slots.longest)

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        """Columns that attention looks at, and the first of them."""
        return self.get_seq_length() + query_length, 0

    def get_max_length(self) -> int:
        """Tokens that fit."""
        return self.slots.width
