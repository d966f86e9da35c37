"""The key-value cache of a changing batch: a slot per row, each row as long as it is, nothing copied while rows grow.

    cache = KVCache(rows=64, width=512, device=net.device)
    cache.fill(0, prefilled_cache, row=3, length=17)
    net(input_ids=last, attention_mask=cache.visible(1), past_key_values=cache.transformers_cache, use_cache=True, ...)
    cache.grow(1)

Rows 0 to n - 1 are in use; a forward pass of n rows writes each row's new token behind its last.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from transformers import Cache
from transformers.cache_utils import CacheLayerMixin


class KVCache:
    """The keys and values of all layers, with one slot per row of the batch.

    Args:
        rows: the number of slots.
        width: the number of tokens that fit into each slot.
        device: the device of the model.

    Attributes:
        lengths: (rows,) the number of tokens in each slot.
        transformers_cache: the cache object that the model is called with.
    """

    def __init__(self, rows: int, width: int, device: torch.device) -> None:
        self.rows, self.width, self.device = rows, width, device
        self.lengths = torch.zeros(rows, dtype=torch.long, device=device)
        self.longest = [0] * rows
        self.layers: list[_SlotLayer] = []
        self.transformers_cache = Cache(layers=[])

    def fill(self, slot: int, cache: Any, row: int, length: int) -> None:
        """Puts the first `length` tokens of one row of transformers' own cache into a slot.

        Args:
            slot: the slot that is filled.
            cache: the cache of a forward pass over whole prompts.
            row: the row of that pass.
            length: the number of tokens that are copied.
        """
        if not self.layers:
            self.layers = [_SlotLayer(self, layer.keys, layer.values) for layer in cache.layers]
            self.transformers_cache = Cache(layers=list(self.layers))
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

    def __init__(self, whole: KVCache, keys: Tensor, values: Tensor) -> None:
        super().__init__()
        self.whole = whole
        self.keys: Tensor = keys.new_zeros(whole.rows, keys.shape[1], whole.width, keys.shape[3])
        self.values: Tensor = values.new_zeros(whole.rows, values.shape[1], whole.width, values.shape[3])
        self.rows = torch.arange(whole.rows, device=whole.device)
        self.is_initialized = True

    def lazy_initialization(self, key_states: Tensor, value_states: Tensor) -> None:
        """Does nothing: transformers calls it before the first update, and `__init__` has allocated the tensors already."""

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        """Writes one token behind each row's last, and returns the keys and values that attention looks at.

        Args:
            key_states: (n, heads, 1, size) the new token of each of the first n rows.
            value_states: (n, heads, 1, size) likewise.
            args: not used; transformers passes the layer's index.
            kwargs: not used.
        """
        n = key_states.shape[0]
        at = self.rows[:n], slice(None), self.whole.lengths[:n]
        self.keys[at], self.values[at] = key_states.squeeze(2), value_states.squeeze(2)
        width = max(self.whole.longest[:n]) + 1
        return self.keys[:n, :, :width], self.values[:n, :, :width]

    def get_seq_length(self) -> int:
        """Returns the number of tokens in the longest slot."""
        return max(self.whole.longest)

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        """Returns the number of columns that attention looks at, and the index of the first one."""
        return self.get_seq_length() + query_length, 0

    def get_max_length(self) -> int:
        """Returns the number of tokens that fit into a slot."""
        return self.whole.width
