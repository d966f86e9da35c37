"""From hidden states to log-likelihoods of given tokens: where a model with a large vocabulary spends its memory.

log_lik = predicted_log_probs(net, {"input_ids": ids}, places, tokens, "chunked")     # (N,), one per true entry of places

`full` holds all logits of the places at once, in one tensor. `chunked` holds a piece at a time and computes it again in the backward pass.
`liger` is Liger's fused Triton kernel (Hsu et al. 2024, arXiv:2410.10989), for CUDA. All give the same values, to rounding.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from unlearn_lightning.inference.fast_paths import known

CrossEntropy = Literal["full", "chunked", "liger"]
# Logits held at once by "chunked": 64 MiB in float32.
CHUNK = 2**24
# Logits handled at once where a CPU's cache should hold them: 2 MiB in float32.
CACHE = 2**19
# Settings of models whose logits are not just the head's output.
ALTERED = ("final_logit_softcapping", "logit_scale", "logits_scaling", "logits_soft_cap")


def selected_log_probs(logits: Tensor, tokens: Tensor) -> Tensor:
    """Log softmax(logits)[token], in float32 whatever the logits' dtype.

    Args: logits: (..., V); tokens: (...).   Returns: (...) nats.
    """
    return -nn.functional.cross_entropy(logits.float().flatten(0, -2), tokens.flatten(), reduction="none").view(tokens.shape)


class _OwnedLogProbs(torch.autograd.Function):
    """Computes `selected_log_probs` of logits that nobody else needs: the gradient takes over the logits' memory, one (N, V) tensor."""

    @staticmethod
    def forward(ctx: Any, logits: Tensor, tokens: Tensor) -> Tensor:
        normaliser = torch.cat([part.logsumexp(-1) for part in _in_pieces(logits)])
        ctx.save_for_backward(logits, tokens, normaliser)
        return logits.gather(-1, tokens[:, None]).squeeze(-1) - normaliser

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        # Autograd's version counter refuses a second backward pass, which would find the logits gone.
        logits, tokens, normaliser = ctx.saved_tensors
        for part, less, by in zip(*map(_in_pieces, (logits, normaliser, gradient), [logits] * 3), strict=True):
            part.sub_(less[:, None]).exp_().mul_(by[:, None]).neg_()
        logits[torch.arange(len(tokens), device=tokens.device), tokens] += gradient
        return logits, None


def _in_pieces(tensor: Tensor, like: Tensor | None = None) -> Sequence[Tensor]:
    """Splits the rows into pieces that fit a CPU's cache; on a GPU all rows are one piece."""
    rows, vocabulary = (tensor if like is None else like).shape
    return tensor.split(max(1, CACHE // vocabulary) if tensor.device.type == "cpu" else rows) if rows else [tensor]


def predicted_log_probs(net: Any, inputs: dict[str, Tensor], places: Tensor, tokens: Tensor, cross_entropy: CrossEntropy) -> Tensor:
    """Log p of the tokens that are predicted at some places.

    Args:
        net: a transformers causal LM, with or without adapters.
        inputs: of its forward pass.
        places: (B, T) bool, true at the N places whose next token is scored.
        tokens: (N,) those next tokens, row by row.
        cross_entropy: see above.

    Returns:
        (N,) nats in float32, differentiable.
    """
    if cross_entropy == "full":
        logits = net(**inputs, logits_to_keep=places, use_cache=False).logits.float()
        # Where something follows the head, it may need its result again in the backward pass.
        return selected_log_probs(logits, tokens) if _altered(net) or not known(net) else _OwnedLogProbs.apply(logits, tokens)
    head, found = net.get_output_embeddings(), []

    def keep(_: nn.Module, args: tuple[Tensor]) -> tuple[Tensor]:
        found.append(args[0])
        return (args[0][:0],)

    # The model's own head is given no token to project, because only the head's input is needed.
    hook = head.register_forward_pre_hook(keep)
    try:
        net(**inputs, logits_to_keep=places, use_cache=False)
    finally:
        hook.remove()
    return _liger(head, found[0], tokens) if cross_entropy == "liger" else _chunked(head, found[0], tokens)


def _chunked(head: Any, hidden: Tensor, tokens: Tensor) -> Tensor:
    def piece(part: Tensor, wanted: Tensor) -> Tensor:
        return selected_log_probs(head(part), wanted)

    rows = max(1, CHUNK // head.weight.shape[0])
    pieces = zip(hidden.split(rows), tokens.split(rows), strict=True)
    return torch.cat([checkpoint(piece, part, wanted, use_reentrant=False, preserve_rng_state=False) for part, wanted in pieces])


def _liger(head: Any, hidden: Tensor, tokens: Tensor) -> Tensor:
    from liger_kernel.transformers import LigerFusedLinearCrossEntropyLoss

    weight = head.weight.to(hidden.dtype)
    losses: Tensor = LigerFusedLinearCrossEntropyLoss(reduction="none")(weight, hidden, tokens, head.bias)
    return -losses.float()


def _altered(net: Any) -> list[str]:
    """The model's settings that change logits after the head."""
    config = net.config.get_text_config()
    return [name for name in ALTERED if getattr(config, name, None) not in (None, 1, 1.0)]


def check_cross_entropy(net: Any, cross_entropy: CrossEntropy) -> None:
    """Refuses a way of computing cross-entropy that the model or the machine cannot do.

    Raises:
        ValueError: the model changes its logits after the head, or `liger` finds no plain head.
        RuntimeError: `liger` without CUDA or without its package.
    """
    if cross_entropy == "full":
        return
    if altered := _altered(net):
        raise ValueError(f"This model's {altered[0]} changes its logits after the head: set backbone.cross_entropy to full.")
    if cross_entropy == "chunked":
        return
    if not torch.cuda.is_available():
        raise RuntimeError("backbone.cross_entropy liger is a CUDA kernel and there is no CUDA device: set it to chunked, the same result.")
    if type(net.get_output_embeddings()) is not nn.Linear:
        raise ValueError("backbone.cross_entropy liger needs a plain linear head without an adapter: set it to chunked.")
    try:
        import liger_kernel  # noqa: F401
    except ImportError as error:
        raise RuntimeError("backbone.cross_entropy liger needs liger-kernel: pip install 'unlearn_lightning[cuda]'.") from error
