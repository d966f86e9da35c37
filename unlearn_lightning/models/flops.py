"""How many floating-point operations a training step needs, and how many a device could do.

    matrices = Matrices.of(net)
    matrices.training_flops(tokens=12_000, response_tokens=2_000)
    peak_flops(torch.device("cuda"), torch.bfloat16)                # what the device could do in a second; null where unknown

Counted are the multiplications with weight matrices, 2 FLOPs per weight and token for each pass that is needed: forward, backward to the
activations, and for trained weights the gradient. The vocabulary's head meets response tokens only. Left out are attention scores,
element-wise operations, padding, and what gradient checkpointing computes twice; what prefix_sharing.py saves is counted. This is the work
asked for, not the work done.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

import torch
from lightning.fabric.utilities.throughput import get_available_flops
from torch import nn

# 10^12 a second by NVIDIA's data sheets: 16-bit floats on tensor cores (dense: half of what is printed "with sparsity"), and float32
# without tensor cores. Lightning's own table, which is asked for all others, does not know an H200 by the name it gives itself, takes an
# L40S for an L4, and has some GPUs with sparsity and some without tensor cores.
PEAKS = {
    "B200": (2250.0, 75.0), "GH200": (989.4, 66.9), "H200 NVL": (835.5, 60.0), "H200": (989.4, 66.9), "H100 NVL": (835.5, 60.0),
    "H100 PCIe": (756.0, 51.2), "H100 80GB HBM2e": (756.0, 51.2), "H100": (989.4, 66.9), "A100": (312.0, 19.5), "A40": (149.7, 37.4),
    "A6000": (154.8, 38.7), "L40S": (362.1, 91.6), "L40": (181.0, 90.5), "L4": (121.0, 30.3), "RTX 4090": (165.2, 82.6),
}  # fmt: skip


@dataclass(frozen=True)
class Matrices:
    """Counts the weights that tokens are multiplied with, whatever they are stored as.

    Attributes:
        frozen, trained: of the linear layers but the head, adapters included.
        head: of the projection onto the vocabulary.
        head_trained: whether it is trained.
        adapter: of `trained`, those of adapters, which the reference model lacks.
    """

    frozen: int
    trained: int
    head: int
    head_trained: bool
    adapter: int

    @staticmethod
    def of(net: Any) -> Matrices:
        """Counts the linear layers of a network, with or without adapters, quantised or not."""
        head = net.get_output_embeddings()
        frozen = trained = adapter = 0
        for name, layer in net.named_modules():
            if isinstance(layer, nn.Linear) and layer is not head:
                size = layer.in_features * layer.out_features
                if layer.weight.requires_grad:
                    trained += size
                    adapter += size if ".lora_" in name else 0
                else:
                    frozen += size
        return Matrices(frozen, trained, head.in_features * head.out_features, head.weight.requires_grad, adapter)

    def training_flops(self, tokens: int, response_tokens: int, reference: bool = False) -> int:
        """Counts the operations of one training pass over a micro-batch.

        Args:
            tokens: real tokens, prompts and responses.
            response_tokens: of those, the ones that are predicted.
            reference: whether the frozen reference reads the micro-batch too.
        """
        body = (4 * self.frozen + 6 * self.trained) * tokens + (6 if self.head_trained else 4) * self.head * response_tokens
        once = 2 * (self.frozen + self.trained - self.adapter) * tokens + 2 * self.head * response_tokens
        return body + (once if reference else 0)


def peak_flops(device: torch.device, dtype: torch.dtype) -> float | None:
    """What a device could do in a second if it only multiplied large dense matrices; None where that is not known, as on a CPU."""
    if device.type != "cuda":
        return None
    name = torch.cuda.get_device_name(device)
    return named_peak(name, dtype) or (None if "MIG" in name else get_available_flops(device, dtype))


def named_peak(name: str, dtype: torch.dtype) -> float | None:
    """The same of a GPU by the name it gives itself, such as "NVIDIA H100 80GB HBM3"; None for others, and for a part of a GPU (MIG)."""
    found = next((peak for chip, peak in PEAKS.items() if re.search(rf"\b{chip}\b", name)), None)
    if found is None or "MIG" in name:
        return None
    half, single = found
    if dtype != torch.float32:
        return half * 1e12
    # TensorFloat-32, where it is allowed, is half as fast as 16-bit floats.
    return (half / 2 if torch.get_float32_matmul_precision() != "highest" else single) * 1e12
