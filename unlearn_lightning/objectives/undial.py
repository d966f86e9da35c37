"""UNDIAL: self-distillation from the starting model with the forgotten token's logit lowered.

unlearn fit -c configs/objectives/undial.yaml -c configs/backbones/llama3.2-1b.yaml --model.backbone.adapter RUN/adapter
"""

from __future__ import annotations

import math
from typing import Any

from torch import Tensor
from torch.nn import functional

from unlearn_lightning.data import Batch
from unlearn_lightning.inference.likelihood import response_logits
from unlearn_lightning.modules import Unlearning


def undial_loss(logits: Tensor, reference_logits: Tensor, tokens: Tensor, beta: float) -> Tensor:
    """Cross-entropy to softmax(z_ref - β e_token); Dong et al. 2024, arXiv:2402.10052.

    Args:
        logits: (N, V) of the trained model.
        reference_logits: (N, V) of the starting model.
        tokens: (N,) the tokens to be forgotten.
        beta: by how much their logits are lowered.

    Returns:
        (N,) nats.
    """
    lowered = reference_logits.float() - beta * functional.one_hot(tokens, reference_logits.shape[-1])
    return -(lowered.softmax(-1) * logits.float().log_softmax(-1)).sum(-1)


class UNDIAL(Unlearning):
    """Distils the starting model with lowered logits into the trained one; mean over the response tokens of the whole batch.

    Only response tokens count. The authors' code and OpenUnlearning average over all positions, masked ones included.

    Args:
        beta: by how much a forgotten token's logit is lowered; 10 in OpenUnlearning, 5 in the authors' code, 3 in its README.
    """

    average = "tokens"
    needs_reference_logits = True

    def __init__(self, *args: Any, beta: float = 10.0, **kwargs: Any) -> None:
        super().__init__(*args, cache_reference=False, **kwargs)  # type: ignore[misc]
        if not 0 < beta < math.inf:
            raise ValueError(f"UNDIAL needs beta above 0, got {beta}.")
        self.beta = beta

    def forget_loss(self, batch: Batch) -> Tensor:
        """(B,) nats, summed over response tokens."""
        logits = response_logits(self.net, batch.input_ids, batch.attention_mask, batch.response_mask)
        values = undial_loss(logits, self.reference_logits(batch), batch.input_ids[batch.response_mask], self.beta)
        return self.per_response(values, batch)
