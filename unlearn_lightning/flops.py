"""How many floating-point operations a training step needs.

    matrices = Matrices.of(net)
    matrices.training_flops(tokens=12_000, response_tokens=2_000)

Counted are the multiplications with weight matrices, 2 FLOPs per weight and token for each pass that is needed: forward, backward to the
activations, and for trained weights the gradient. The vocabulary's head meets response tokens only. Left out are attention scores,
element-wise operations, padding, and what gradient checkpointing computes twice: this is the work asked for, not the work done.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import nn


@dataclass(frozen=True)
class Matrices:
    """Weights that tokens are multiplied with, whatever they are stored as.

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
        """Of one training pass over a micro-batch.

        Args:
            tokens: real tokens, prompts and responses.
            response_tokens: of those, the ones that are predicted.
            reference: whether the frozen reference reads the micro-batch too.
        """
        body = (4 * self.frozen + 6 * self.trained) * tokens + (6 if self.head_trained else 4) * self.head * response_tokens
        once = 2 * (self.frozen + self.trained - self.adapter) * tokens + 2 * self.head * response_tokens
        return body + (once if reference else 0)
