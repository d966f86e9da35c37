"""Response log-likelihoods, in nats, and how they are computed cheaply.

    token_log_lik = token_log_likelihood(net, batch.input_ids, batch.attention_mask, batch.response_mask)   # (B, T)
    response_log_lik = token_log_lik.sum(-1)                                                                # (B,)

Exact savings: the vocabulary projection runs only where a response token is predicted, a batch padded on the right needs no mask, and
what no response token depends on is left out (prefix_sharing.py). The plain computation is the tests' oracle, and what an architecture
gets that does not agree with it (fast_paths.py). The likelihood of the label and its paraphrases, which are many candidates for one
prompt, is computed in multiple_choice.py, and its probe is callbacks/forget_likelihood.py.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from unlearn_lightning.inference.cross_entropy import CrossEntropy, predicted_log_probs, selected_log_probs
from unlearn_lightning.inference.fast_paths import choose, forget_longer_passes, known, sharded, stretched
from unlearn_lightning.inference.prefix_sharing import abridged

TokenRows = tuple[Tensor, Tensor, Tensor]
PADDED = "padded rows"
# From the fastest to the plain pass (fast_paths.py).
WAYS = ("selected logits", PADDED, "single rows")
NOT_IN_SHARDS = (
    "This network's rows must be computed one at a time, because padding or the longest row would change the others, and FSDP2 needs the "
    "same number of passes on all processes. Set trainer.strategy to ddp."
)


def position_ids(attention_mask: Tensor) -> Tensor:
    """Positions counted from each row's first real token, so that left and right padding give the same likelihoods.

    Args: attention_mask: (B, T), 1 at real tokens.   Returns: (B, T), 0 at padding before the first token.
    """
    return (attention_mask.long().cumsum(-1) - 1).clamp(min=0)


def token_log_likelihood(
    net: Any, input_ids: Tensor, attention_mask: Tensor, response_mask: Tensor, cross_entropy: CrossEntropy = "full"
) -> Tensor:
    """Computes log p(token | everything before it) at the response tokens; it is 0 elsewhere.

    Args:
        net: a transformers causal LM, with or without PEFT adapters.
        input_ids: (B, T) tokens, padded on either side.
        attention_mask: (B, T), 0 where there is padding.
        response_mask: (B, T) bool, true at response tokens; a response may not start in the first column.
        cross_entropy: how the vocabulary's logits are handled; the same values.

    Returns:
        (B, T) nats in float32, differentiable.
    """
    way = chosen_way(net, input_ids, attention_mask, cross_entropy)
    chosen = _log_lik(net, (input_ids, attention_mask, response_mask), way, cross_entropy)
    return torch.zeros(input_ids.shape, dtype=chosen.dtype, device=chosen.device).masked_scatter(response_mask, chosen)


def response_logits(net: Any, input_ids: Tensor, attention_mask: Tensor, response_mask: Tensor) -> Tensor:
    """The logits that predict the N response tokens, row by row: (N, V).

    Args:
        net: a transformers causal LM, with or without PEFT adapters.
        input_ids: (B, T) tokens, padded on either side.
        attention_mask: (B, T), 0 where there is padding.
        response_mask: (B, T) bool, true at the N response tokens.
    """
    way = chosen_way(net, input_ids, attention_mask, "full")
    if way != WAYS[0]:
        return _plain_logits(net, (input_ids, attention_mask, response_mask), way)
    with _pass(net, input_ids, attention_mask, response_mask) as (inputs, places):
        logits: Tensor = net(**inputs, logits_to_keep=places, use_cache=False).logits
    return logits.flatten(0, -2)


def chosen_way(net: Any, input_ids: Tensor, attention_mask: Tensor, cross_entropy: CrossEntropy) -> str:
    """How this network computes the likelihoods of such a batch; it is decided here if it has not been."""
    width = input_ids.shape[1]

    def values(way: str) -> Tensor:
        longest = attention_mask.sum(-1).argmax()
        row = stretched(input_ids[longest][attention_mask[longest].bool()].tolist(), width)
        # A long row and a short one, on either side of which padding would show. All tokens but the first are compared.
        lengths = torch.tensor([[width], [max(2, width // 2)]], device=net.device)
        place = torch.arange(width, device=net.device)
        real = place < lengths
        return _log_lik(net, (torch.tensor([row, row], device=net.device) * real, real.long(), real & (place > 0)), way, cross_entropy)

    fastest = WAYS[0] if cross_entropy == "full" else f"{WAYS[0]}, {cross_entropy}"
    return choose(net, "likelihood", (fastest, *WAYS[1:]), width, values)


def _log_lik(net: Any, batch: TokenRows, way: str, cross_entropy: CrossEntropy) -> Tensor:
    """(N,) nats of the response tokens, row by row."""
    input_ids, _, response_mask = batch
    tokens = input_ids[:, 1:][response_mask[:, 1:]]
    if way in WAYS[1:]:
        return selected_log_probs(_plain_logits(net, batch, way), tokens)
    with _pass(net, *batch) as (inputs, places):
        return predicted_log_probs(net, inputs, places, tokens, cross_entropy)


def _pass(net: Any, input_ids: Tensor, attention_mask: Tensor, response_mask: Tensor) -> Any:
    """Context with what the model reads, and where it predicts a response token: column t predicts token t + 1."""
    inputs: dict[str, Tensor] = {"input_ids": input_ids}
    if not attention_mask[:, 0].all():
        if known(net):
            inputs |= {"attention_mask": attention_mask, "position_ids": position_ids(attention_mask)}
        else:
            input_ids, response_mask = _padded_on_the_right(input_ids, attention_mask, response_mask)
            inputs = {"input_ids": input_ids}
    # Otherwise all padding is on the right, where causal attention keeps it out of sight: the fastest attention needs no mask.
    return abridged(net, inputs, functional.pad(response_mask[:, 1:], (0, 1)))


def _padded_on_the_right(input_ids: Tensor, attention_mask: Tensor, response_mask: Tensor) -> tuple[Tensor, Tensor]:
    """The same rows with their padding behind them: many architectures look at what stands before, whatever a mask says."""
    order = attention_mask.long().argsort(dim=1, descending=True, stable=True)
    return input_ids.gather(1, order), response_mask.gather(1, order)


def _plain_logits(net: Any, batch: TokenRows, way: str) -> Tensor:
    """(N, V) the logits that predict the response tokens, from all logits of the rows together or of one row at a time.

    Raises:
        ValueError: one row at a time while weights are in shards, as processes have different numbers of rows.
    """
    input_ids, attention_mask, response_mask = batch
    if way == PADDED:
        input_ids, response_mask = _padded_on_the_right(*batch)
        logits: Tensor = net(input_ids=input_ids, use_cache=False).logits
        return logits[:, :-1][response_mask[:, 1:]]
    if torch.is_grad_enabled() and sharded(net):
        raise ValueError(NOT_IN_SHARDS)
    found = []
    for ids, real, said in zip(input_ids, attention_mask.bool(), response_mask, strict=True):
        forget_longer_passes(net)
        found.append(net(input_ids=ids[real][None], use_cache=False).logits[0, :-1][said[real][1:]])
    return torch.cat(found)


def mean_token(token_log_lik: Tensor, response_mask: Tensor) -> Tensor:
    """Mean over each response's tokens.   Args: both (B, T).   Returns: (B,) nats per token."""
    return (token_log_lik * response_mask).sum(-1) / response_mask.sum(-1)
