"""Another run's adapters on the same base network, for as long as its predictions are asked for.

with other_adapters(net, ["runs/retrained/adapter"]):
    ...                                     # net is the retrained model; no second copy of the base is made
"""

from __future__ import annotations

import unlearn_lightning.inference.hub_kernels  # isort: skip  # noqa: F401

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from peft import PeftModel
from torch import nn

from unlearn_lightning.models.adapters import TRAINABLE, activate, load_adapter

MERGED = "merged_adapters"


def note_merged(net: nn.Module, adapters: Sequence[str]) -> nn.Module:
    """Notes on a base network which adapters were merged into its weights."""
    setattr(net, MERGED, list(adapters))
    return net


@contextmanager
def other_adapters(net: PeftModel, adapters: Sequence[str]) -> Iterator[None]:
    """Context in which the network is its base with these adapters instead of its own.

    Adapters that were merged into the base are taken off again by stacking them with the opposite sign, which is exact to the rounding of
    the base's dtype. What is loaded is gone afterwards, and the network as it was.

    Args:
        net: with its own adapters, of which one is trainable.
        adapters: the other run's adapter folders, bottom first.

    Raises:
        ValueError: an adapter does not fit, or one that was merged is no plain sum of low-rank matrices.
    """
    own, names = list(net.peft_config), []
    try:
        for number, folder in enumerate(getattr(net.get_base_model(), MERGED, [])):
            names.append(f"undone{number}")
            load_adapter(net, folder, trainable=False, name=names[-1])
            _negate(net, names[-1], folder)
        for number, folder in enumerate(adapters):
            names.append(f"other{number}")
            load_adapter(net, folder, trainable=False, name=names[-1])
        net.eval()
        if names:
            activate(net, names)
            yield
        else:
            with net.disable_adapter():
                yield
    finally:
        for name in names:
            if name in net.peft_config:
                net.delete_adapter(name)
        activate(net, [*(name for name in own if name != TRAINABLE), TRAINABLE])


@torch.no_grad()
def _negate(net: PeftModel, name: str, folder: str) -> None:
    config: Any = net.peft_config[name]
    if getattr(config, "use_dora", False):
        raise ValueError(f"The adapter {folder} is merged into the base and uses DoRA, so that it cannot be taken off again.")
    for layer in net.modules():
        for part in ("lora_B", "lora_embedding_B"):
            matrices: Any = getattr(layer, part, None)
            if isinstance(matrices, nn.ModuleDict | nn.ParameterDict) and name in matrices:
                found: Any = matrices[name]
                weight: Any = found.weight if isinstance(found, nn.Module) else found
                weight.neg_()
