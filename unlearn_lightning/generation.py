"""Batched generation of responses: greedy, or several sampled attempts.

texts = generate(net, tokenizer, [prompt_ids], max_new_tokens=64)              # [["6 + 6 = 12.\n#### 12"]]
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from transformers import GenerationConfig, PreTrainedTokenizerBase


@torch.no_grad()
def generate(
    net: Any,
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[Sequence[int]],
    max_new_tokens: int,
    attempts: int = 1,
    temperature: float = 0.0,
    seed: int = 0,
) -> list[list[str]]:
    """Continues every prompt until the end of turn.

    Args:
        net: a transformers causal LM in eval mode.
        tokenizer: its tokenizer.
        prompts: token lists, processed as one batch.
        max_new_tokens: longest response, tokens.
        attempts: responses per prompt.
        temperature: 0 decodes greedily; above, samples from the full softmax at this temperature.
        seed: of the sampling; the global random state is left as it was.

    Returns:
        Per prompt, `attempts` texts without special tokens.
    """
    width = max(map(len, prompts))
    padded = torch.full((len(prompts), width), int(tokenizer.pad_token_id or 0))
    mask = torch.zeros_like(padded)
    for row, prompt in enumerate(prompts):
        padded[row, width - len(prompt) :] = torch.tensor(list(prompt))
        mask[row, width - len(prompt) :] = 1
    config = GenerationConfig(
        max_new_tokens=max_new_tokens,
        do_sample=temperature > 0,
        temperature=temperature or None,
        top_k=0 if temperature else None,
        num_return_sequences=attempts,
        eos_token_id=end_tokens(net, tokenizer),
        pad_token_id=tokenizer.pad_token_id,
    )
    devices = [net.device] if net.device.type == "cuda" else []
    with torch.random.fork_rng(devices):
        torch.manual_seed(seed)
        # Processes generate different prompts, and `sharding.lockstep` keeps them together where they must be.
        output = net.generate(
            input_ids=padded.to(net.device), attention_mask=mask.to(net.device), generation_config=config, synced_gpus=False
        )
    texts = tokenizer.batch_decode(output[:, width:], skip_special_tokens=True)
    return [texts[i * attempts : (i + 1) * attempts] for i in range(len(prompts))]


def end_tokens(net: Any, tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """Every token that ends a turn: the tokenizer's, the model's own list, and the one the chat template closes a response with."""
    known = getattr(net, "generation_config", None)
    own = known.eos_token_id if known is not None else None
    found = {tokenizer.eos_token_id, *(own if isinstance(own, list) else [own])} - {None}
    turns = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]
    closed = str(tokenizer.apply_chat_template(turns, tokenize=False)).rstrip("\n")
    last = tokenizer(closed, add_special_tokens=False)["input_ids"][-1]
    if last in tokenizer.all_special_ids:
        found.add(last)
    return sorted(int(token) for token in found)
