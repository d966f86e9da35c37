"""Response log-likelihoods, in nats, and how they are computed cheaply.

    token_log_lik = token_log_likelihood(net, batch.input_ids, batch.attention_mask, batch.response_mask)   # (B, T)
    response_log_lik = token_log_lik.sum(-1)                                                                # (B,)

Two savings, both exact: the vocabulary projection runs only on the columns that predict a response token, and many candidate
responses to one prompt share the prompt's key-value cache. The plain computation is the tests' oracle.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn


def position_ids(attention_mask: Tensor) -> Tensor:
    """Positions counted from each row's first real token, so that left and right padding give the same likelihoods.

    Args: attention_mask: (B, T), 1 at real tokens.   Returns: (B, T), 0 at padding before the first token.
    """
    return (attention_mask.long().cumsum(-1) - 1).clamp(min=0)


def selected_log_probs(logits: Tensor, tokens: Tensor) -> Tensor:
    """log softmax(logits)[token], in float32 whatever the logits' dtype.

    Args: logits: (..., V); tokens: (...).   Returns: (...) nats.
    """
    return -nn.functional.cross_entropy(logits.float().flatten(0, -2), tokens.flatten(), reduction="none").view(tokens.shape)


def token_log_likelihood(net: Any, input_ids: Tensor, attention_mask: Tensor, response_mask: Tensor) -> Tensor:
    """log p(token | everything before it) at the response tokens, 0 elsewhere.

    Args:
        net: a transformers causal LM, with or without PEFT adapters.
        input_ids, attention_mask: (B, T), padded on either side.
        response_mask: (B, T) bool, true at response tokens; a response may not start in the first column.

    Returns:
        (B, T) nats, differentiable.
    """
    targets = response_mask[:, 1:]
    # Column t of the logits predicts token t + 1; columns that predict no response token in any row are never projected.
    columns = targets.any(0).nonzero().squeeze(-1)
    output = net(
        input_ids=input_ids,
        attention_mask=attention_mask,
        position_ids=position_ids(attention_mask),
        logits_to_keep=columns,
        use_cache=False,
    )
    chosen = selected_log_probs(output.logits, input_ids[:, columns + 1]).masked_fill(~targets[:, columns], 0.0)
    return torch.zeros(input_ids.shape, dtype=chosen.dtype, device=chosen.device).index_copy(1, columns + 1, chosen)


def mean_token(token_log_lik: Tensor, response_mask: Tensor) -> Tensor:
    """Mean over each response's tokens.   Args: both (B, T).   Returns: (B,) nats per token."""
    return (token_log_lik * response_mask).sum(-1) / response_mask.sum(-1)


class CandidateScores(NamedTuple):
    """What one prompt's candidate responses got; rows are candidates, columns their tokens.

    Attributes:
        token_log_lik: (C, L) nats, 0 past a candidate's end.
        token_margin: (C, L) logit of the token minus the largest other logit; above 0 where greedy decoding would say it.
        mask: (C, L) bool, true at real tokens.
    """

    token_log_lik: Tensor
    token_margin: Tensor
    mask: Tensor


def margin(logits: Tensor, tokens: Tensor) -> Tensor:
    """Logit of the token minus the largest other logit.   Args: (..., V), (...).   Returns: (...), float32."""
    logits, index = logits.float(), tokens.unsqueeze(-1)
    others = logits.scatter(-1, index, -torch.inf).amax(-1)
    return logits.gather(-1, index).squeeze(-1) - others


@torch.no_grad()
def score_candidates(net: Any, prompt_ids: Sequence[int], candidates: Sequence[Sequence[int]]) -> CandidateScores:
    """Scores many candidate responses to one prompt, computing the prompt once.

    Args:
        net: a transformers causal LM in eval mode.
        prompt_ids: the prompt's tokens.
        candidates: C non-empty token lists; the longest has L tokens.
    """
    device = net.device
    tokens = nn.utils.rnn.pad_sequence([torch.tensor(list(c)) for c in candidates], batch_first=True).to(device)
    lengths = torch.tensor([len(c) for c in candidates], device=device)
    mask = torch.arange(tokens.shape[1], device=device) < lengths[:, None]
    prompt = torch.tensor([list(prompt_ids)], device=device)
    prefill = net(input_ids=prompt, use_cache=True, logits_to_keep=1)
    logits = prefill.logits.expand(len(candidates), -1, -1)
    if tokens.shape[1] > 1:
        cache = prefill.past_key_values
        cache.batch_repeat_interleave(len(candidates))
        # Padding stands after each candidate's end, where causal attention keeps it out of sight; no mask is needed.
        rest = net(input_ids=tokens[:, :-1], past_key_values=cache, use_cache=True).logits
        logits = torch.cat([logits, rest], dim=1)
    return CandidateScores(selected_log_probs(logits, tokens).masked_fill(~mask, 0.0), margin(logits, tokens).masked_fill(~mask, 0.0), mask)
