"""The directions in which a layer's inputs lie, and updates of its weights that leave them alone.

    places = input_places(net)                                   # {weight: the module whose input it multiplies}
    moments = InputMoments(net, places)
    with moments.counting(batch.attention_mask.bool()):
        net(...)
    subspaces = moments.subspaces(0.9)
    subspaces.keep(net)                                          # what the weights say of the subspaces now ...
    subspaces.project(net)                                       # ... they say again, whatever the optimizer did

A weight W multiplies its inputs x, so that an update which is 0 on the span of the columns of U changes W x for no x of that span. W keeps
W U as it was exactly where W <- W - (W U - K) Uᵀ with K = W U from before: that is the update without its part in the subspace, whichever
optimizer made it, and rounding does not add up over the steps.
"""

from __future__ import annotations

import unlearn_lightning.inference.hub_kernels  # isort: skip  # noqa: F401

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from peft import PeftModel
from peft.tuners.tuners_utils import BaseTunerLayer
from torch import Tensor, nn

from unlearn_lightning.models.adapters import TRAINABLE
from unlearn_lightning.modules.activations import decoder_layers

LIMIT = 4 * 2**30
TOO_LARGE = (
    "{objective} collects the second moments of the inputs of {layers} linear layers: up to {width:,} numbers wide, {size:.1f} GiB in "
    "float64, on each device; {limit:.0f} GiB at most are taken. Train fewer layers, which backbone.lora.target_modules names."
)


def input_places(net: nn.Module) -> dict[str, str]:
    """The weights whose updates can be projected, each with the name of the module whose input it multiplies.

    These are the linear layers of the decoder layers; with an adapter its first matrices, which read the same inputs.
    """
    prefixes = tuple(f"{name}." for name in decoder_layers(net))
    found = {}
    for name, module in net.named_modules():
        if not name.startswith(prefixes):
            continue
        if isinstance(net, PeftModel):
            if isinstance(module, BaseTunerLayer) and TRAINABLE in getattr(module, "lora_A", {}):
                found[f"{name}.lora_A.{TRAINABLE}.weight"] = name
        elif isinstance(module, nn.Linear):
            found[f"{name}.weight"] = name
    return found


def check_size(objective: str, net: nn.Module, places: Mapping[str, str]) -> None:
    """Refuses moments that would not fit, before anything is computed.

    Raises:
        ValueError: they take more than `LIMIT` bytes, if no two layers have an input in common.
    """
    widths = [net.get_parameter(weight).shape[-1] for weight in places]
    if (size := sum(8 * width * width for width in widths)) > LIMIT:
        facts = {"layers": len(widths), "width": max(widths), "size": size / 2**30, "limit": LIMIT / 2**30}
        raise ValueError(TOO_LARGE.format(objective=objective, **facts))


def leading_directions(moment: Tensor, share: float) -> Tensor:
    """The leading singular vectors of the inputs X, as many as have a cumulative share of the singular values of at most `share`.

    Args: moment: (d, d) Xᵀ X, float64.   share: from 0 to 1.   Returns: (d, k) orthonormal columns; k is 0 where the first has more.
    """
    squared, vectors = torch.linalg.eigh(moment)
    values: Tensor = squared.flip(0).clamp(min=0).sqrt()
    reached = values.cumsum(0) / values.sum()
    found: Tensor = vectors.flip(1)[:, : int((reached <= share).sum())]
    return found


@dataclass
class Subspaces:
    """The subspace of each projected weight's inputs, and what the weight says of it.

    Attributes:
        bases: module name -> (d, k) orthonormal columns; modules with one input share a basis.
        basis_of: weight name -> which basis.
        kept: weight name -> (m, k) the weight times its basis, as it is to stay.
    """

    bases: dict[str, Tensor]
    basis_of: dict[str, str]
    kept: dict[str, Tensor]

    @torch.no_grad()
    def keep(self, net: nn.Module) -> None:
        """Takes what the weights say of their subspaces.

        An adapter's first matrix is to say nothing of it, from its random start on: its second one, which is trained as well, would
        otherwise carry it there. The second one is 0 then, so that the model stays as it is.
        """
        for name, basis in self.bases_on(net):
            weight = net.get_parameter(name)
            said = weight.float() @ basis
            self.kept[name] = torch.zeros_like(said) if isinstance(net, PeftModel) else said

    @torch.no_grad()
    def project(self, net: nn.Module) -> None:
        """Takes back what moved in the subspaces."""
        for name, basis in self.bases_on(net):
            weight = net.get_parameter(name)
            full, self.kept[name] = weight.float(), self.kept[name].to(basis)
            weight.copy_(full - (full @ basis - self.kept[name]) @ basis.T)

    def bases_on(self, net: nn.Module) -> Iterator[tuple[str, Tensor]]:
        """Each weight with its basis, on the weight's device."""
        for name, module in self.basis_of.items():
            self.bases[module] = self.bases[module].to(net.get_parameter(name).device)
            yield name, self.bases[module]

    def state(self) -> dict[str, Any]:
        """As tensors and names, for a checkpoint."""
        return {"bases": self.bases, "basis_of": self.basis_of, "kept": self.kept}


class InputMoments:
    """Second moments of the inputs of some modules, over all real tokens that pass; modules that are given one tensor share theirs.

    Args:
        net: a transformers causal LM.
        places: weight name -> module name, as `input_places` gives them.
    """

    def __init__(self, net: nn.Module, places: Mapping[str, str]) -> None:
        self.net, self.places = net, places
        # By module: the one whose moment it shares, itself or an earlier one.
        self.shared: dict[str, str] = {}
        self.moments: dict[str, Tensor] = {}

    @contextmanager
    def counting(self, real: Tensor) -> Iterator[None]:
        """Context in which one forward pass is counted.   Args: real: (B, T) bool, false at padding."""
        alive: dict[int, tuple[str, Tensor]] = {}

        def count(name: str, inputs: Tensor) -> None:
            # The tensors are held until the pass ends, so that no other one gets an identity again.
            first, _ = alive.setdefault(id(inputs), (name, inputs))
            if self.shared.setdefault(name, first) == name:
                chosen = inputs.detach()[real].double()
                self.moments[name] = self.moments.get(name, 0.0) + chosen.T @ chosen

        handles = [
            self.net.get_submodule(name).register_forward_pre_hook(lambda _, given, name=name: count(name, given[0]))
            for name in dict.fromkeys(self.places.values())
        ]
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    def subspaces(self, share: float) -> Subspaces:
        """The subspaces by `leading_directions`; a moment is freed as soon as its directions are there."""
        bases = {name: leading_directions(self.moments.pop(name), share).float() for name in list(self.moments)}
        return Subspaces(bases, {weight: self.shared[name] for weight, name in self.places.items()}, {})
