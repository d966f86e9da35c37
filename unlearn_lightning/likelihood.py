"""Response log-likelihoods, in nats, and how they are computed cheaply.

    token_log_lik = token_log_likelihood(net, batch.input_ids, batch.attention_mask, batch.response_mask)   # (B, T)
    response_log_lik = token_log_lik.sum(-1)                                                                # (B,)

Exact savings: the vocabulary projection runs only where a response token is predicted, a batch padded on the right needs no mask, and
what no response token depends on is left out (shortcuts.py). The plain computation is the tests' oracle. Many candidates per prompt are
in candidates.py.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from unlearn_lightning.shortcuts import abridged
from unlearn_lightning.vocabulary import CrossEntropy, predicted_log_probs


def position_ids(attention_mask: Tensor) -> Tensor:
    """Positions counted from each row's first real token, so that left and right padding give the same likelihoods.

    Args: attention_mask: (B, T), 1 at real tokens.   Returns: (B, T), 0 at padding before the first token.
    """
    return (attention_mask.long().cumsum(-1) - 1).clamp(min=0)


def token_log_likelihood(
    net: Any, input_ids: Tensor, attention_mask: Tensor, response_mask: Tensor, cross_entropy: CrossEntropy = "full"
) -> Tensor:
    """log p(token | everything before it) at the response tokens, 0 elsewhere.

    Args:
        net: a transformers causal LM, with or without PEFT adapters.
        input_ids, attention_mask: (B, T), padded on either side.
        response_mask: (B, T) bool, true at response tokens; a response may not start in the first column.
        cross_entropy: how the vocabulary's logits are handled; the same values.

    Returns:
        (B, T) nats in float32, differentiable.
    """
    with _pass(net, input_ids, attention_mask, response_mask) as (inputs, places):
        chosen = predicted_log_probs(net, inputs, places, input_ids[:, 1:][response_mask[:, 1:]], cross_entropy)
    return torch.zeros(input_ids.shape, dtype=chosen.dtype, device=chosen.device).masked_scatter(response_mask, chosen)


def response_logits(net: Any, input_ids: Tensor, attention_mask: Tensor, response_mask: Tensor) -> Tensor:
    """The logits that predict the N response tokens, row by row: (N, V)."""
    with _pass(net, input_ids, attention_mask, response_mask) as (inputs, places):
        logits: Tensor = net(**inputs, logits_to_keep=places, use_cache=False).logits
    return logits.flatten(0, -2)


def _pass(net: Any, input_ids: Tensor, attention_mask: Tensor, response_mask: Tensor) -> Any:
    """Context with what the model reads, and where it predicts a response token: column t predicts token t + 1."""
    inputs: dict[str, Tensor] = {"input_ids": input_ids}
    if not attention_mask[:, 0].all():
        inputs |= {"attention_mask": attention_mask, "position_ids": position_ids(attention_mask)}
    # Otherwise all padding is on the right, where causal attention keeps it out of sight: the fastest attention needs no mask.
    return abridged(net, inputs, functional.pad(response_mask[:, 1:], (0, 1)))


def mean_token(token_log_lik: Tensor, response_mask: Tensor) -> Tensor:
    """Mean over each response's tokens.   Args: both (B, T).   Returns: (B,) nats per token."""
    return (token_log_lik * response_mask).sum(-1) / response_mask.sum(-1)
