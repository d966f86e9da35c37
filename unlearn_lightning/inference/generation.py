r"""Generation of responses: greedy, or several sampled attempts, in a batch that stays full.

texts = generate(net, tokenizer, [prompt_ids], max_new_tokens=64)              # [["6 + 6 = 12.\n#### 12"]]

A prompt is computed once for all its attempts, a finished attempt leaves the batch and a waiting one takes its place (continuous
batching, Yu et al. 2022, Orca). Every attempt draws from a random stream of its own, so what it says does not depend on what it
shares a batch or a process with. Architectures whose cache cannot do this are asked one by one, or without a cache (fast_paths.py).
"""

from __future__ import annotations

import hashlib
import sys
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from typing import Any, NamedTuple

import torch
from torch import Tensor
from transformers import GenerationConfig, PreTrainedTokenizerBase

from unlearn_lightning.inference.attention import attention_mask, takes_masks
from unlearn_lightning.inference.chat_format import ChatFormat
from unlearn_lightning.inference.fast_paths import choose, forget_longer_passes, stretched
from unlearn_lightning.inference.kv_cache import KVCache
from unlearn_lightning.preemption import between_chunks

Tokens = Sequence[int]
# For an untested architecture this number of tokens of each response is compared with the plain pass.
STEPS = 8


@torch.no_grad()
def generate(
    net: Any,
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[Tokens],
    max_new_tokens: int,
    attempts: int = 1,
    temperature: float = 0.0,
    seed: int = 0,
    batch_size: int = 64,
) -> list[list[str]]:
    """Continues every prompt until the end of turn.

    Args:
        net: a transformers causal LM in eval mode.
        tokenizer: its tokenizer.
        prompts: non-empty token lists.
        max_new_tokens: longest response, tokens.
        attempts: responses per prompt.
        temperature: 0 decodes greedily; above, samples from the full softmax at this temperature.
        seed: of the sampling, with the prompt and the attempt's number; the global random state is left as it was.
        batch_size: attempts continued at once; changes time and memory only.

    Returns:
        Per prompt, `attempts` texts without special tokens.
    """
    settings = Sampling(max_new_tokens, attempts if temperature else 1, temperature, seed, frozenset(end_tokens(net, tokenizer)))
    with _uncompiled():
        way = chosen_way(net, prompts, max_new_tokens, settings.ends)
        said: dict[tuple[int, int], list[int]] = dict(WAYS[way](net, prompts, settings, batch_size))
    texts = [tokenizer.batch_decode([said[i, k] for k in range(settings.attempts)], skip_special_tokens=True) for i in range(len(prompts))]
    return [text * (attempts // len(text)) for text in texts]


def chosen_way(net: Any, prompts: Sequence[Tokens], max_new_tokens: int, ends: frozenset[int] = frozenset()) -> str:
    """How this network generates after such prompts; it is decided here if it has not been.

    Args: ends: tokens that end a response, which are not among those that are compared.
    """
    prompt = max(prompts, key=len)
    length = len(prompt) + max_new_tokens

    def values(way: str) -> Tensor:
        # The last tokens that can be generated, and the first ones after a short prompt and one of a single token.
        steps = min(STEPS, max_new_tokens)
        tokens = stretched([token for token in prompt if token not in ends] or [0], _fitting(net, length))
        texts = [tokens, tokens[: max(1, len(prompt) // 2) + steps], tokens[: 1 + steps]]
        logits = FORCED[way](net, [text[:-steps] for text in texts], [text[-steps:] for text in texts])
        said = torch.tensor([text[-steps:] for text in texts], device=logits.device)
        return logits.float().log_softmax(-1).gather(-1, said[..., None])

    return choose(net, "generation", list(WAYS)[0 if takes_masks(net) else 1 :], length, values)


def _fitting(net: Any, length: int) -> int:
    """Returns the length, or the number of positions that the model has if that is smaller."""
    config = net.config.get_text_config()
    return min(length, *(getattr(config, name, None) or length for name in ("max_position_embeddings", "max_seq_len")))


def _uncompiled() -> Any:
    """Layers uncompiled: each would be compiled anew for its place in the cache, up to torch's limit, and then training not at all."""
    return torch.compiler.set_stance("force_eager") if "torch._dynamo" in sys.modules else nullcontext()


class Sampling(NamedTuple):
    """How responses are drawn."""

    max_new_tokens: int
    attempts: int
    temperature: float
    seed: int
    ends: frozenset[int]

    def stream(self, prompt: Tokens, attempt: int) -> int:
        """Seed of one attempt's random numbers."""
        name = f"{self.seed}/{attempt}/{list(prompt)}"
        return int.from_bytes(hashlib.sha256(name.encode()).digest()[:8]) >> 1

    def randoms(self, prompt: Tokens, attempt: int) -> Tensor:
        """(max_new_tokens,) numbers in [0, 1): one for each token of the response."""
        generator = torch.Generator().manual_seed(self.stream(prompt, attempt))
        return torch.rand(self.max_new_tokens, generator=generator)

    def choose(self, logits: Tensor, random: Tensor) -> Tensor:
        """The next tokens: the likeliest, or where the random number falls among the cumulated probabilities.

        Args: logits: (R, V); random: (R,) in [0, 1).   Returns: (R,).
        """
        if not self.temperature:
            return logits.argmax(-1)
        cumulated = (logits.float() / self.temperature).softmax(-1).cumsum(-1)
        # The last of them is 1 but for rounding. `right` passes over tokens of probability 0.
        found = torch.searchsorted(cumulated, random[:, None] * cumulated[:, -1:], right=True).squeeze(-1)
        return found.clamp(max=logits.shape[-1] - 1)


class _Ready(NamedTuple):
    """A prompt that has been computed, and the attempt that is to start from it."""

    prompt: int
    attempt: int
    cache: Any
    row: int
    logits: Tensor


def _continuous(net: Any, prompts: Sequence[Tokens], how: Sampling, batch_size: int) -> Iterator[tuple[tuple[int, int], list[int]]]:
    """Yields ((prompt's number, attempt), its tokens) as they finish."""
    # Prompts of similar length are computed together; the longest come first.
    waiting = deque(sorted(range(len(prompts)), key=lambda i: -len(prompts[i])))
    ready: deque[_Ready] = deque()
    batch_size = min(batch_size, len(prompts) * how.attempts)
    cache = KVCache(batch_size, max(map(len, prompts)) + how.max_new_tokens, net.device)
    randoms = torch.zeros(batch_size, how.max_new_tokens, device=net.device)
    last = torch.zeros(batch_size, dtype=torch.long, device=net.device)
    owners: list[tuple[int, int]] = []
    said: list[list[int]] = []
    # New prompts are computed several at a time, once this many places are free.
    enough = max(1, min(how.attempts, batch_size), batch_size // 8)
    while True:
        between_chunks()
        free = batch_size - len(owners)
        if (ready or waiting) and (free >= enough or not owners):
            while waiting and len(ready) < free:
                count = min(len(waiting), -(-(free - len(ready)) // how.attempts))
                ready += _prefill(net, prompts, [waiting.popleft() for _ in range(count)], how.attempts)
            starting = [ready.popleft() for _ in range(min(free, len(ready)))]
            first, n = len(owners), len(owners) + len(starting)
            for slot, start in enumerate(starting, start=first):
                cache.fill(slot, start.cache, start.row, len(prompts[start.prompt]))
                randoms[slot] = how.randoms(prompts[start.prompt], start.attempt)
                owners.append((start.prompt, start.attempt))
                said.append([])
            last[first:n] = how.choose(torch.stack([start.logits for start in starting]), randoms[first:n, 0])
            new = range(first, n)
        elif owners:
            n = len(owners)
            logits = _step(net, cache, last[:n])
            steps = torch.tensor([len(tokens) for tokens in said], device=net.device)
            last[:n] = how.choose(logits, randoms[:n].gather(1, steps[:, None]).squeeze(1))
            new = range(n)
        else:
            return
        tokens = last[: len(owners)].tolist()
        for slot in reversed(new):
            said[slot].append(tokens[slot])
            if tokens[slot] in how.ends or len(said[slot]) == how.max_new_tokens:
                yield owners[slot], said[slot]
                # The last attempt in the batch moves into the slot that became free.
                end = len(owners) - 1
                cache.move(end, slot)
                last[slot], randoms[slot] = last[end].clone(), randoms[end].clone()
                owners[slot], said[slot] = owners[end], said[end]
                owners.pop()
                said.pop()


def _prefill(net: Any, prompts: Sequence[Tokens], numbers: Sequence[int], attempts: int) -> list[_Ready]:
    """Computes prompts once, padded on the right, where causal attention keeps the padding out of sight."""
    lengths = torch.tensor([len(prompts[i]) for i in numbers])
    ids = torch.zeros(len(numbers), int(lengths.max()), dtype=torch.long)
    for row, i in enumerate(numbers):
        ids[row, : len(prompts[i])] = torch.tensor(list(prompts[i]))
    output = net(input_ids=ids.to(net.device), use_cache=True, logits_to_keep=(lengths - 1)[:, None].to(net.device))
    cache, logits = output.past_key_values, output.logits[:, 0]
    return [_Ready(i, attempt, cache, row, logits[row]) for row, i in enumerate(numbers) for attempt in range(attempts)]


def _step(net: Any, cache: KVCache, last: Tensor) -> Tensor:
    """(n, V) the logits after the tokens, (n,), that are each slot's last and not yet in it."""
    n = len(last)
    logits: Tensor = net(
        input_ids=last[:, None],
        attention_mask=attention_mask(net, cache.visible(n)),
        position_ids=cache.lengths[:n, None],
        past_key_values=cache.transformers_cache,
        use_cache=True,
    ).logits[:, -1]
    cache.grow(n)
    return logits


def _forced_in_slots(net: Any, prompts: Sequence[Tokens], responses: Sequence[Tokens]) -> Tensor:
    """(P, L, V) the logits that predict each token of given responses, all of L tokens, in a batch as above."""
    starts = _prefill(net, prompts, range(len(prompts)), 1)
    cache = KVCache(len(prompts), max(map(len, prompts)) + len(responses[0]), net.device)
    for slot, start in enumerate(starts):
        cache.fill(slot, start.cache, start.row, len(prompts[slot]))
    columns = torch.tensor([list(response) for response in responses], device=net.device).T
    return torch.stack([torch.stack([start.logits for start in starts]), *(_step(net, cache, column) for column in columns[:-1])], dim=1)


def _one_by_one(net: Any, prompts: Sequence[Tokens], how: Sampling, _: int) -> Iterator[tuple[tuple[int, int], list[int]]]:
    """The same by transformers' own `generate`, for models whose attention takes no masks of ours; samples differ from the above."""
    config = GenerationConfig(
        max_new_tokens=how.max_new_tokens, do_sample=how.temperature > 0, temperature=how.temperature or None,
        top_k=0 if how.temperature else None, eos_token_id=sorted(how.ends), pad_token_id=min(how.ends),
    )  # fmt: skip
    for i, prompt in enumerate(prompts):
        ids = torch.tensor([list(prompt)], device=net.device)
        for attempt in range(how.attempts):
            with torch.random.fork_rng([net.device] if net.device.type == "cuda" else []):
                torch.manual_seed(how.stream(prompt, attempt))
                # Processes generate different prompts, and `sharding.lockstep` keeps them together where they must be.
                mask = torch.ones_like(ids)
                between_chunks()
                output = net.generate(input_ids=ids, attention_mask=mask, generation_config=config, synced_gpus=False)
            yield (i, attempt), output[0, len(prompt) :].tolist()


def _forced_one_by_one(net: Any, prompts: Sequence[Tokens], responses: Sequence[Tokens]) -> Tensor:
    """(P, L, V) as above, by `generate`, which is allowed the given responses alone."""
    found = []
    for prompt, response in zip(prompts, responses, strict=True):
        ids = torch.tensor([list(prompt)], device=net.device)
        output = net.generate(
            input_ids=ids, attention_mask=torch.ones_like(ids), max_new_tokens=len(response), do_sample=False, pad_token_id=0,
            prefix_allowed_tokens_fn=lambda _, ids, text=(*prompt, *response): [text[len(ids)]],
            output_logits=True, return_dict_in_generate=True, synced_gpus=False,
        )  # fmt: skip
        found.append(torch.cat(output.logits))
    return torch.stack(found)


def _without_cache(net: Any, prompts: Sequence[Tokens], how: Sampling, _: int) -> Iterator[tuple[tuple[int, int], list[int]]]:
    """The same by the plain pass of all that was said so far, for each token anew; draws what the batch above draws."""
    for i, prompt in enumerate(prompts):
        for attempt in range(how.attempts):
            said: list[int] = []
            for random in how.randoms(prompt, attempt).to(net.device):
                forget_longer_passes(net)
                ids = torch.tensor([[*prompt, *said]], device=net.device)
                logits = net(input_ids=ids, use_cache=False).logits[:, -1]
                said.append(int(how.choose(logits, random[None])))
                if said[-1] in how.ends:
                    break
            yield (i, attempt), said


def _forced_without_cache(net: Any, prompts: Sequence[Tokens], responses: Sequence[Tokens]) -> Tensor:
    """(P, L, V) as above, by the plain pass."""
    found = []
    for prompt, response in zip(prompts, responses, strict=True):
        ids = torch.tensor([[*prompt, *response]], device=net.device)
        found.append(net(input_ids=ids, use_cache=False).logits[0, len(prompt) - 1 : -1])
    return torch.stack(found)


# From the fastest to the plain pass (fast_paths.py), and how each of them predicts given responses.
WAYS = {"refilled batch": _continuous, "one by one": _one_by_one, "no cache": _without_cache}
FORCED = {"refilled batch": _forced_in_slots, "one by one": _forced_one_by_one, "no cache": _forced_without_cache}


def end_tokens(net: Any, tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """Every token that ends a turn: the tokenizer's, the model's own list, and the one the chat template closes a response with."""
    known = getattr(net, "generation_config", None)
    own = known.eos_token_id if known is not None else None
    return sorted({*ChatFormat(tokenizer).ends, *(own if isinstance(own, list) else [own])} - {None})
