"""Scoring a label and 20 paraphrases after each prompt, against one padded full-logits row for each pair."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from callbacks.forget_likelihood import LABEL, PARAPHRASES
from scripts.benchmarks.measure import Result, compared, timed
from scripts.benchmarks.setting import VOCABULARIES, encoded, llama, paper_like, tokenizer
from unlearn_lightning.data import Encoder, SafetyStage
from unlearn_lightning.inference.multiple_choice import score_candidates

TARGETS = {"32k": 8.0, "128k": 13.0}
PROMPTS = 1


@torch.no_grad()
def each_pair(net: Any, prompts: Sequence[Sequence[int]], candidates: Sequence[Sequence[int]]) -> Tensor:
    """(P, C) log-likelihoods: for each prompt a batch of one row a candidate, padded on the right, logits everywhere."""
    found = []
    for prompt in prompts:
        width = len(prompt) + max(map(len, candidates))
        ids, seen = torch.zeros(len(candidates), width, dtype=torch.long), torch.zeros(len(candidates), width, dtype=torch.long)
        for row, candidate in enumerate(candidates):
            ids[row, : len(prompt) + len(candidate)] = torch.tensor([*prompt, *candidate])
            seen[row, : len(prompt) + len(candidate)] = 1
        ids, seen = ids.to(net.device), seen.to(net.device)
        log_p = net(input_ids=ids, attention_mask=seen).logits.float().log_softmax(-1)
        token = log_p[:, :-1].gather(-1, ids[:, 1:, None]).squeeze(-1) * seen[:, 1:]
        found.append(token[:, len(prompt) - 1 :].sum(-1))
    return torch.stack(found)


def scoring(repeats: int = 1, prompts: int = PROMPTS) -> list[Result]:
    """The phrases of ForgetLikelihood after prompts as long as the paper's, and after the world's short ones (without targets)."""
    encoder = Encoder(tokenizer())
    phrases = [encoder.response_start_ids(text) for text in (LABEL, *PARAPHRASES)]
    shapes = {
        "96-token prompts": [e.prompt_ids for e in paper_like(prompts)],
        "the world's prompts": [e.prompt_ids for e in encoded(SafetyStage(), "held_out")[:prompts]],
    }
    found = []
    for (name, size), (shape, asked) in itertools.product(VOCABULARIES.items(), shapes.items()):
        net = llama(size).eval()
        target = TARGETS[name] if shape.startswith("96") else None
        fast, slow = score_candidates(net, asked, phrases).token_log_lik.sum(-1), each_pair(net, asked, phrases)
        apart = (fast - slow).abs().max().item()
        times = timed(
            {"ours": lambda: score_candidates(net, asked, phrases), "theirs": lambda: each_pair(net, asked, phrases)},
            repeats,
            warm_up=False,
        )
        lengths = f"{min(map(len, asked))}-{max(map(len, asked))} prompt tokens, {sum(map(len, phrases))} in 21 phrases"
        found.append(
            compared(
                "scoring 1 label + 20 paraphrases per prompt", "one padded full-logits row for each pair", f"vocabulary {name}, {shape}",
                times["ours"], times["theirs"], target, note=f"{lengths}; sums differ by at most {apart:.0e} nats",
            )
        )  # fmt: skip
    return found
