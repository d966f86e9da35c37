"""FSDP2: a network's weights cut into shards, one per process, and put together where they are used (torch's `fully_shard`).

    shard(net, mesh)              # each decoder layer by itself, embeddings and head together; `net` goes on as before
    whole(parameter)              # all of it, on every process
    with lockstep(net):           # processes may now make different numbers of forward passes
        ...

Gathering a layer takes all processes, so every one of them must make every forward pass. Training does; measuring may not.
"""

from __future__ import annotations

import unlearn_lightning.inference.hub_kernels  # isort: skip  # noqa: F401

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.distributed
from peft import PeftModel
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor
from transformers.modeling_layers import GradientCheckpointingLayer


def causal_lm(net: nn.Module) -> Any:
    """The transformers model, below the adapters if there are any: generation calls it and not what is around it."""
    return net.get_base_model() if isinstance(net, PeftModel) else net


def shard(net: nn.Module, mesh: DeviceMesh, compute: torch.dtype | None = None) -> None:
    """Cuts all weights into one shard per process, in place; must come before the optimizer is made.

    Args:
        net: the same weights on every process, or (unquantised) real ones on the first and the meta device on all others, which are
            then filled from the first.
        mesh: one-dimensional, over all processes.
        compute: dtype in which trained float32 weights are gathered; null for their own. Autocast would convert them itself, and keep
            both for all layers at once. Adapters are small, and stay as they are.
    """
    root = causal_lm(net)
    first = mesh.get_local_rank() == 0
    values = {name: parameter.data for name, parameter in net.named_parameters()}
    elsewhere = torch.tensor(any(value.is_meta for value in values.values()), device=mesh.device_type, dtype=torch.long)
    torch.distributed.all_reduce(elsewhere, group=mesh.get_group())
    layers = [module for module in root.modules() if isinstance(module, GradientCheckpointingLayer)]
    assert layers, f"{type(root).__name__} has no decoder layers"
    narrow = compute is not None and not isinstance(net, PeftModel)
    policy = MixedPrecisionPolicy(param_dtype=compute, reduce_dtype=torch.float32) if narrow else MixedPrecisionPolicy()
    for module in (*layers, root):
        fully_shard(module, mesh=mesh, mp_policy=policy)
    if elsewhere.item():
        _fill(net, values if first else {}, mesh)


def _fill(net: nn.Module, values: dict[str, Tensor], mesh: DeviceMesh) -> None:
    """Gives every process its shards of the first one's weights, a weight at a time, and its buffers."""
    device = torch.device(mesh.device_type, torch.cuda.current_device()) if mesh.device_type == "cuda" else torch.device("cpu")
    made: dict[Any, nn.Parameter] = {}
    for name, parameter in net.named_parameters():
        cut: Any = parameter
        full = values[name].to(device) if values else torch.empty(cut.shape, dtype=cut.dtype, device=device)
        part = distribute_tensor(full, mesh, cut.placements, src_data_rank=0)
        made[parameter] = nn.Parameter(part, requires_grad=parameter.requires_grad)
    for module in net.modules():
        for name, there in list(module.named_parameters(recurse=False, remove_duplicate=False)):
            if there.is_meta:
                # Tied weights stay tied: both places get the same parameter.
                setattr(module, name, made[there])
        for name, buffer in list(module.named_buffers(recurse=False, remove_duplicate=False)):
            real = torch.empty_like(buffer, device=device) if buffer.is_meta else buffer.to(device)
            torch.distributed.broadcast(real, 0, group=mesh.get_group())
            setattr(module, name, real)


def whole(tensor: Tensor) -> Tensor:
    """The tensor from all its shards; itself where there are none. All processes must call it."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def local(tensor: Tensor) -> Tensor:
    """This process's shard; the tensor itself where there are none."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def squared_norm(tensors: Iterable[Tensor]) -> Tensor:
    """The sum of the squares of all numbers in this process's shards, a float32 scalar.

    `torch._foreach_norm` has one kernel for all tensors. The public `torch.nn.utils.get_total_norm` (torch 2.13) calls it, too, but adds
    up in the tensors' own dtype, so that float16 gradients would overflow.
    """
    norms = torch._foreach_norm([local(tensor).detach() for tensor in tensors])
    return torch.stack(norms).float().square().sum()


def cut_like(full: Tensor, parameter: Tensor) -> Tensor:
    """The same value, cut as the parameter is; needs no other process, as each has the whole."""
    if not isinstance(parameter, DTensor):
        return full
    return distribute_tensor(full.to(parameter.device), parameter.device_mesh, parameter.placements, src_data_rank=None)


def gathered(net: nn.Module, names: set[str] | None = None, keep: bool = True) -> dict[str, Tensor]:
    """The state dict with whole tensors on the CPU, gathered one at a time, tied ones once. All processes must call it.

    Args:
        net: sharded or not.
        names: of the entries that are wanted; null for all.
        keep: whether this process wants them; the others get nothing, and no memory is spent on them.
    """
    found = {}
    tied = {name for name, _ in net.named_parameters(remove_duplicate=False)} - {name for name, _ in net.named_parameters()}
    for name, value in net.state_dict().items():
        if name not in tied and (names is None or name in names):
            full = whole(value.detach())
            if keep:
                found[name] = full.cpu()
    return found


@contextmanager
def lockstep(net: nn.Module) -> Iterator[None]:
    """Lets processes make different numbers of forward passes of a sharded network: who is done keeps the others company.

    Before every pass all processes add up who still has work. One that left the block makes passes over a single token until the sum
    is 0, as their gathering of weights is what the others need. Use it without gradients. Other networks need nothing of this.
    """
    root = causal_lm(net)
    sharded = isinstance(root, FSDPModule)
    if not sharded:
        yield
        return
    device = next(root.parameters()).device

    def at_work(busy: bool) -> bool:
        count = torch.tensor(int(busy), device=device)
        torch.distributed.all_reduce(count)
        return bool(count.item())

    def say_so(*_: Any) -> None:
        at_work(True)

    # Before the hook that gathers the weights, in which the others are to take part.
    handle = root.register_forward_pre_hook(say_so, prepend=True)
    try:
        yield
    finally:
        handle.remove()
    while at_work(False):
        root(input_ids=torch.zeros((1, 1), dtype=torch.long, device=device), use_cache=False)
    root.reshard()
