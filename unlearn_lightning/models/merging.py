"""Earlier adapters below the trained one: merged into the base's weights where that is the same model, and stacked otherwise.

net = merge(base, ["runs/tofu/adapter"], tokens)      # raises UnequalMerge where the merged weights are another model
net = stack(base, ["runs/tofu/adapter"])              # always the same model, at the price of two small products a layer

Input embeddings and head are one weight in many small models (Llama-3.2-1B, Qwen2.5-1.5B): an adapter of one of them, merged, changes both.
"""

from __future__ import annotations

import unlearn_lightning.inference.hub_kernels  # isort: skip  # noqa: F401

from collections import Counter
from collections.abc import Sequence
from typing import Any

import torch
import torch.distributed
from peft.tuners.tuners_utils import BaseTunerLayer
from torch import Tensor, nn

from unlearn_lightning.models.adapters import FROZEN, eval_mode, load_adapter
from unlearn_lightning.models.other_adapters import note_merged

# A merge counts as the same model where its logits move by no more than this share of their spread (standard deviation), on average.
# float32 leaves about 1e-6. Weights of 8 or 11 significant bits are rounded once more by merging, which costs what their bits cost.
LIMITS = {torch.float32: 1e-4, torch.float16: 0.01, torch.bfloat16: 0.05}
TEXT = "Who wrote it, and when? Ann said on Monday, 12 May 1987, that she had finished the second half; nobody had asked her before."


class UnequalMerge(ValueError):
    """Raised where merged weights would be another model than the stack; the base may be changed by then, so load it again."""


def stack(base: nn.Module, folders: Sequence[str]) -> nn.Module:
    """The base with the adapters in these folders on top, frozen and numbered."""
    for number, folder in enumerate(folders):
        base = load_adapter(base, folder, trainable=False, name=f"{FROZEN}{number}")
    return base


def merge(base: nn.Module, folders: Sequence[str], tokens: Sequence[int]) -> nn.Module:
    """The base with the adapters in these folders in its weights, each checked on a text. All processes of a run call this together.

    Args:
        base: unquantised; on the meta device there is nothing to compare, and another process decides.
        folders: bottom first.
        tokens: of the text.

    Raises:
        UnequalMerge: the logits differ by more than LIMITS, or an adapted layer shares its weights with another layer.
    """
    for folder in folders:
        net = load_adapter(base, folder, trainable=False)
        if tied := tied_targets(net):
            raise UnequalMerge(f"{folder} adapts {tied[0]}, whose weights another layer shares")
        before = _logits(net, tokens)
        merged: Any = net.merge_and_unload()
        base, after = merged, _logits(merged, tokens)
        share = 0.0 if before is None or after is None else ((after - before).abs().mean() / before.std()).item()
        limit = LIMITS[base.dtype]  # type: ignore[index]
        if not all(_everywhere(share <= limit)):
            raise UnequalMerge(f"{folder}, merged in {base.dtype}, moves logits by {share:.2g} of their spread, where {limit:g} is allowed")
    return note_merged(base, folders)


def tied_targets(net: Any) -> list[str]:
    """Names of the adapted layers whose weights another layer has as well."""
    owners = Counter(id(weight) for module in net.modules() for _, weight in module.named_parameters(recurse=False, remove_duplicate=False))
    adapted = ((name, module) for name, module in net.named_modules() if isinstance(module, BaseTunerLayer))
    return [
        name.removeprefix("base_model.model.")
        for name, module in adapted
        if owners[id(getattr(module.get_base_layer(), "weight", None))] > 1
    ]


def untie(net: Any) -> None:
    """Gives a model's head weights of its own, equal ones."""
    adapted = net.get_output_embeddings()
    head: Any = adapted.get_base_layer() if isinstance(adapted, BaseTunerLayer) else adapted
    head.weight = nn.Parameter(head.weight.detach().clone(), requires_grad=False)


@torch.no_grad()
def _logits(net: Any, tokens: Sequence[int]) -> Tensor | None:
    """(T, V) float32; None where the weights are elsewhere."""
    if any(parameter.is_meta for parameter in net.parameters()):
        return None
    with eval_mode(net):
        logits: Tensor = net(input_ids=torch.tensor([tokens], device=net.device), use_cache=False).logits[0]
    return logits.float()


def _everywhere(value: bool) -> list[bool]:
    """Returns the value of every process."""
    if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
        return [value]
    found: list[Any] = [None] * torch.distributed.get_world_size()
    torch.distributed.all_gather_object(found, value)
    return found
