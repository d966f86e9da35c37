"""One gate for everything that computes a network in a faster way than its plain pass.

    WAYS = ("tree", "cache", "single rows")                     # fastest first; the last one is the plain computation
    way = choose(net, "candidates", WAYS, length, values)       # values(way): (N,) nats of some of the run's own tokens, computed that way

Architectures of KNOWN are tested and take the fastest way. Any other one is compared with the plain pass before it is used, once for each
length that is longer than all before, and takes the fastest way that agrees; a line says so where that is not the fastest of all. Rotations
that depend on how long a pass is take the plain pass wherever a sequence is longer than the positions the model was made for.
"""

from __future__ import annotations

import unlearn_lightning.inference.hub_kernels  # isort: skip  # noqa: F401

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import torch
import torch.distributed
from peft import LoraConfig
from torch import Tensor
from torch.distributed.fsdp import FSDPModule

from unlearn_lightning.inference.attention import implementation

# Models whose values and gradients by every fast way were compared with the plain pass's (tests/test_fast_paths.py, test_shortcuts.py).
KNOWN = (
    "llama", "mistral", "mixtral", "qwen2", "qwen3", "gemma", "gemma2", "gemma3_text", "phi3", "olmo2", "granite", "smollm3", "gpt2",
    "gpt_neox",
)  # fmt: skip
# Nats by which a token's log-likelihood may differ from the plain pass's: what rounding does in a deep network. Where it does more, the
# plain pass is taken, which costs time and nothing else.
BOUNDS = {torch.float32: 1e-4, torch.float16: 3e-2, torch.bfloat16: 2e-1}
Quantity = Literal["likelihood", "candidates", "generation"]


@dataclass(frozen=True)
class Decision:
    """What one network takes for one quantity.

    Attributes:
        way: number of the way.
        length: of the longest sequence that was compared, tokens.
        why: what was wrong with the faster ways, for the line that is printed; empty where the fastest is taken.
    """

    way: int
    length: int
    why: str = ""


Key = tuple[Quantity, tuple[str, ...], str]


@dataclass
class Decisions:
    """What one network takes; kept on it.

    Attributes:
        made: by quantity, its ways, and the attention implementation.
        said: what has been printed.
        waiting: whether lines wait until all processes agree.
        said_longer: whether it was said that some sequences are too long for anything but the plain pass.
    """

    made: dict[Key, Decision] = field(default_factory=dict)
    said: set[Key] = field(default_factory=set)
    waiting: bool = False
    said_longer: bool = False


def known(net: Any) -> bool:
    """Whether the architecture is tested, with LoRA or without adapters."""
    adapters = getattr(net, "peft_config", {}).values()
    if any(not isinstance(adapter, LoraConfig) or adapter.alora_invocation_tokens for adapter in adapters):
        return False
    return net.config.get_text_config().model_type in KNOWN


def sharded(net: Any) -> bool:
    """Whether FSDP2 has cut the weights, so that all processes must make the same passes."""
    return any(isinstance(module, FSDPModule) for module in net.modules())


def settled_length(net: Any) -> float | None:
    """The longest sequence whose rotations do not depend on how long it is, tokens; None where they never do."""
    config = net.config.get_text_config()
    rope = str(getattr(config, "rope_parameters", None))
    if "longrope" not in rope and "dynamic" not in rope:
        return None
    # Some have one for each kind of layer.
    each = [part for part in config.rope_parameters.values() if isinstance(part, dict)] or [config.rope_parameters]
    shortest: float = min(config.max_position_embeddings, *(part.get("original_max_position_embeddings") or math.inf for part in each))
    return shortest


def forget_longer_passes(net: Any) -> None:
    """Takes dynamic rotations back to what they are at first: they keep those of the longest pass so far, whatever comes next."""
    if settled_length(net) is None:
        return
    for module in net.modules():
        for name in [name for name in vars(module) if name.endswith("max_seq_len_cached") and hasattr(module, "original_max_seq_len")]:
            frequencies = name.removesuffix("max_seq_len_cached") + "inv_freq"
            original = frequencies.removesuffix("inv_freq") + "original_inv_freq"
            setattr(module, frequencies, getattr(module, original).to(getattr(module, frequencies).device, copy=True))
            setattr(module, name, module.original_max_seq_len)


def choose(net: Any, quantity: Quantity, ways: Sequence[str], length: int, values: Callable[[str], Tensor]) -> str:
    """The way that a network takes, decided once.

    Args:
        net: a transformers causal LM, with or without PEFT adapters.
        quantity: what is computed.
        ways: from the fastest to the plain computation.
        length: of the longest sequence, tokens.
        values: log-likelihoods of the same tokens by any of the ways, nats; called in eval mode and without gradients.
    """
    limit = settled_length(net)
    if limit is not None:
        forget_longer_passes(net)
        if length > limit:
            _say_longer(net, limit)
            return ways[-1]
    if known(net):
        return ways[0]
    decisions = _decisions(net)
    key = (quantity, tuple(ways), implementation(net.config))
    held = decisions.made.get(key)
    if held is None or (held.length < length and held.way < len(ways) - 1):
        if held is not None and sharded(net):
            # Processes that see longer sequences than were compared at the start must not make passes that the others do not make.
            return ways[-1]
        decisions.made[key] = held = _compare(net, ways, length, values)
        _say(net)
    return ways[held.way]


@contextmanager
def agreed(net: Any) -> Iterator[None]:
    """Context in which all processes make the same decisions, each on the same tokens; they then take the slowest, and one line says it."""
    decisions = _decisions(net)
    decisions.waiting = True
    try:
        yield
    finally:
        decisions.waiting = False
    if torch.distributed.is_initialized():
        device = next(net.parameters()).device
        for key, decision in sorted(decisions.made.items(), key=lambda item: item[0]):
            slowest = torch.tensor(decision.way, device=device)
            torch.distributed.all_reduce(slowest, torch.distributed.ReduceOp.MAX)
            if slowest.item() > decision.way:
                decisions.made[key] = replace(decision, way=int(slowest.item()), why="as another process found")
    _say(net)


def _say(net: Any) -> None:
    """Prints one line for what takes a slower way and has not been said, on the first process."""
    decisions = _decisions(net)
    news = {key: decision for key, decision in decisions.made.items() if decision.why and key not in decisions.said}
    if decisions.waiting or not news:
        return
    decisions.said |= set(news)
    if _first_process():
        kind = net.config.get_text_config().model_type
        parts = [f"{key[0]} takes {key[1][decision.way]!r} ({decision.why})" for key, decision in news.items()]
        print(f"{kind} is not among the tested architectures, so it was compared with its plain pass: {'; '.join(parts)}.")


def _say_longer(net: Any, limit: float) -> None:
    decisions = _decisions(net)
    if not decisions.said_longer and _first_process():
        print(
            f"Some sequences are longer than the {limit} positions up to which this model's rotations (rope_parameters) do not depend on "
            "the length: where there are such, each sequence is computed by itself and without a cache, which is slower."
        )
    decisions.said_longer = True


def _first_process() -> bool:
    return not torch.distributed.is_initialized() or torch.distributed.get_rank() == 0


def stretched(tokens: Sequence[int], length: int) -> list[int]:
    """Real tokens, repeated until they are as long as what is to be computed."""
    return (list(tokens) * -(-length // max(1, len(tokens))))[:length]


def _decisions(net: Any) -> Decisions:
    found: Decisions = net.__dict__.setdefault("fast_path_decisions", Decisions())
    return found


def _compare(net: Any, ways: Sequence[str], length: int, values: Callable[[str], Tensor]) -> Decision:
    bound, reasons = _bound(net), []
    with torch.no_grad(), _undisturbed(net):
        plain = values(ways[-1]).float()
        for number, way in enumerate(ways[:-1]):
            try:
                difference = (values(way).float() - plain).abs().max().item()
            except Exception as error:  # whatever an architecture does not support ends here
                reasons.append(f"{way}: {type(error).__name__}")
                continue
            if difference <= bound:
                return Decision(number, length, ", ".join(reasons))
            reasons.append(f"{way}: {difference:.2g} nats off the plain pass, more than {bound:g}")
    return Decision(len(ways) - 1, length, ", ".join(reasons))


@contextmanager
def _undisturbed(net: Any) -> Iterator[None]:
    """Dropout off; the former mode and the random state come back afterwards."""
    training = {module: module.training for module in net.modules()}
    device = next(net.parameters()).device
    net.eval()
    try:
        with torch.random.fork_rng([device] if device.type == "cuda" else []):
            yield
    finally:
        for module, mode in training.items():
            module.training = mode


def _bound(net: Any) -> float:
    device = next(net.parameters()).device.type
    if torch.is_autocast_enabled(device):
        return BOUNDS[torch.get_autocast_dtype(device)]
    if net.dtype == torch.float32 and device == "cuda" and torch.backends.cuda.matmul.allow_tf32:
        # TF32 has float16's ten bits.
        return BOUNDS[torch.float16]
    return BOUNDS.get(net.dtype, BOUNDS[torch.bfloat16])
