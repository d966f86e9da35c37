"""Lightning's strategy for FSDP2, with checkpoints that any number of processes can read: `trainer.strategy: fsdp2`.

Weights, gradients and optimizer states are cut into one shard per process. CausalLMModule.configure_model cuts the network.
Checkpoints hold whole tensors of what is trained, in the form that one process would write, so a run started on 8 processes goes on
on 1, under DDP, or the other way round.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from lightning.pytorch.core.optimizer import LightningOptimizer
from lightning.pytorch.strategies import ModelParallelStrategy, StrategyRegistry
from lightning_utilities.core.apply_func import apply_to_collection
from torch import Tensor
from torch.distributed.tensor import DTensor
from torch.optim import Optimizer
from typing_extensions import override

from unlearn_lightning.models.sharding import cut_like, gathered, whole

NAME = "fsdp2"


class FullySharded(ModelParallelStrategy):
    """Shards over all processes of all nodes. Runs on CPUs, too (gloo), where it is tested.

    Args:
        process_group_backend: nccl on GPUs and gloo on CPUs where null.
    """

    def __init__(self, process_group_backend: str | None = None) -> None:
        super().__init__(tensor_parallel_size=1, save_distributed_checkpoint=False, process_group_backend=process_group_backend)

    @override
    def setup_environment(self) -> None:
        # Lightning 2.6 takes this size in the constructor only, where the number of processes is not known yet.
        self._data_parallel_size = self.num_nodes * self.num_processes
        super().setup_environment()

    @property
    @override
    def lightning_restore_optimizer(self) -> bool:
        return True

    @override
    def lightning_module_state_dict(self) -> dict[str, Any]:
        """The trained weights, whole, on the first process; nothing on the others."""
        module: Any = self.lightning_module
        return gathered(module, module.trainable_names(), keep=self.is_global_zero)

    @override
    def optimizer_state(self, optimizer: Optimizer) -> dict[str, Any]:
        """The optimizer's state dict with whole tensors, on the first process."""

        def collected(tensor: DTensor) -> Tensor | None:
            full = whole(tensor)
            return full.cpu() if self.is_global_zero else None

        plain = optimizer.optimizer if isinstance(optimizer, LightningOptimizer) else optimizer
        state: dict[str, Any] = apply_to_collection(plain.state_dict(), DTensor, collected)
        return state

    @override
    def load_checkpoint(self, checkpoint_path: Any, weights_only: bool | None = None) -> dict[str, Any]:
        """Reads the file on every process; the usual hooks then put it into place."""
        return super(ModelParallelStrategy, self).load_checkpoint(checkpoint_path, weights_only)

    @override
    @torch.no_grad()
    def load_model_state_dict(self, checkpoint: Mapping[str, Any], strict: bool = True) -> None:
        assert self.lightning_module is not None
        for name, parameter in self.lightning_module.named_parameters():
            if name in checkpoint["state_dict"]:
                parameter.copy_(cut_like(checkpoint["state_dict"][name], parameter))

    @override
    def load_optimizer_state_dict(self, checkpoint: Mapping[str, Any]) -> None:
        for optimizer, saved in zip(self.optimizers, checkpoint["optimizer_states"], strict=True):
            parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
            states = {}
            for number, state in saved["state"].items():
                # Step counts are single numbers and no tensors of the parameter's shape.
                parameter = parameters[number]
                states[number] = {
                    key: cut_like(value, parameter) if isinstance(value, Tensor) and value.shape == parameter.shape else value
                    for key, value in state.items()
                }
            optimizer.load_state_dict({**saved, "state": states})


StrategyRegistry.register(NAME, FullySharded, "FSDP2: weights, gradients and optimizer states in one shard per process")
