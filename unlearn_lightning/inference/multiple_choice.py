"""Scoring many candidate responses to each of several prompts, such as a label and its paraphrases.

scores = score_candidates(net, [prompt_ids, other_prompt_ids], [[5, 6], [5, 7, 8]])
scores.token_log_lik        # (2 prompts, 2 candidates, 3 tokens) nats

One forward pass computes each prompt once and the candidates as a tree below it: beginnings that candidates share are computed once,
and the vocabulary is projected once per branching point. A mask lets a token see its prompt and its own beginning only. Attention
implementations without such masks repeat the prompt's key-value cache for each candidate instead. Architectures with which neither gives
what the plain pass does take whole rows (fast_paths.py).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from unlearn_lightning.inference.attention import attention_mask, takes_masks
from unlearn_lightning.inference.fast_paths import choose, forget_longer_passes
from unlearn_lightning.inference.prefix_sharing import abridged

Tokens = Sequence[int]
# At most this number of rows of one prompt is computed at once where nothing is shared.
ROWS = 16


class CandidateScores(NamedTuple):
    """P prompts, C candidates of at most L tokens.

    Attributes:
        token_log_lik: (P, C, L) nats, 0 past a candidate's end.
        token_margin: (P, C, L) logit of the token minus the largest other logit; above 0 where greedy decoding would say it.
        mask: (C, L) bool, true at real tokens.
    """

    token_log_lik: Tensor
    token_margin: Tensor
    mask: Tensor


@torch.no_grad()
def score_candidates(net: Any, prompts: Sequence[Tokens], candidates: Sequence[Tokens]) -> CandidateScores:
    """Scores every candidate as the response to every prompt.

    Args:
        net: a transformers causal LM in eval mode.
        prompts: the prompts' tokens.
        candidates: non-empty token lists.
    """
    tokens = nn.utils.rnn.pad_sequence([torch.tensor(list(c)) for c in candidates], batch_first=True)
    mask = torch.arange(tokens.shape[1]) < torch.tensor([len(c) for c in candidates])[:, None]
    tree = Tree(candidates)
    way = chosen_way(net, prompts, candidates)
    logits = WAYS[way](net, prompts, candidates, tree)
    mask = mask.to(net.device)
    log_lik, margin = _read(logits.float(), _nodes(way, tree, tokens.shape[1]).to(net.device), tokens.to(net.device))
    return CandidateScores(log_lik.masked_fill(~mask, 0.0), margin.masked_fill(~mask, 0.0), mask)


def chosen_way(net: Any, prompts: Sequence[Tokens], candidates: Sequence[Tokens]) -> str:
    """How this network scores such candidates; it is decided here if it has not been."""
    prompt, candidate = max(prompts, key=len), max(candidates, key=len)

    def values(way: str) -> Tensor:
        # A long prompt, a short one and a single token, and branches: one that goes on, one that ends, and one of its own.
        asked = [list(prompt[:length]) for length in (len(prompt), max(1, len(prompt) // 2), 1)]
        said = [list(candidate), list(candidate[: max(1, len(candidate) // 2)]), list(candidate[::-1])]
        tree = Tree(said)
        log_p = WAYS[way](net, asked, said, tree).float().log_softmax(-1)
        nodes = _nodes(way, tree, len(candidate))
        return torch.cat([log_p[:, row[: len(tokens)], tokens] for row, tokens in zip(nodes, said, strict=True)], dim=1)

    return choose(net, "candidates", list(WAYS)[0 if takes_masks(net) else 1 :], len(prompt) + len(candidate), values)


class Tree:
    """The candidates' beginnings, each once. Node 0 is the end of the prompt; a node stands for what was said so far.

    Attributes:
        tokens: of nodes 1, 2, ...: the last token of what they stand for.
        depths: how many tokens they stand for.
        parents: node number of what came before.
        paths: per candidate, the node at which each of its tokens is predicted.
    """

    def __init__(self, candidates: Sequence[Tokens]) -> None:
        self.tokens: list[int] = []
        self.depths: list[int] = []
        self.parents: list[int] = []
        self.paths: list[list[int]] = []
        known: dict[tuple[int, int], int] = {}
        for candidate in candidates:
            node, path = 0, [0]
            # Nothing is predicted after a candidate's last token, which is therefore never read.
            for depth, token in enumerate(candidate[:-1], start=1):
                child = known.setdefault((node, token), len(self.tokens) + 1)
                if child > len(self.tokens):
                    self.tokens.append(token)
                    self.depths.append(depth)
                    self.parents.append(node)
                node = child
                path.append(node)
            self.paths.append(path)

    def visible(self) -> Tensor:
        """(S, S) bool: whether node i + 1 has node j + 1 in its own beginning, itself included."""
        seen = torch.eye(len(self.tokens), dtype=torch.bool)
        for i, parent in enumerate(self.parents):
            if parent:
                seen[i] |= seen[parent - 1]
        return seen

    def places(self) -> tuple[Tensor, Tensor]:
        """For each node a candidate that passes it, and how many of its tokens it has then said: two tensors of 1 + S."""
        found = {node: (c, i) for c, path in enumerate(self.paths) for i, node in enumerate(path)}
        rows, columns = zip(*(found[node] for node in range(len(self.tokens) + 1)), strict=True)
        return torch.tensor(rows), torch.tensor(columns)

    def predictor(self, length: int) -> Tensor:
        """(C, L) the node at which each candidate's token is predicted; 0 past its end."""
        return torch.tensor([path + [0] * (length - len(path)) for path in self.paths])


def _packed(net: Any, prompts: Sequence[Tokens], candidates: Sequence[Tokens], tree: Tree) -> Tensor:
    """(P, 1 + S, V) the logits at each node: a row is a prompt, its padding, and the tree."""
    width, size = max(map(len, prompts)), len(tree.tokens)
    lengths = torch.tensor([len(p) for p in prompts])
    ids = torch.zeros(len(prompts), width + size, dtype=torch.long)
    for row, prompt in enumerate(prompts):
        ids[row, : len(prompt)] = torch.tensor(list(prompt))
    ids[:, width:] = torch.tensor(tree.tokens, dtype=torch.long)
    position = torch.cat([torch.arange(width).expand(len(prompts), -1), lengths[:, None] - 1 + torch.tensor(tree.depths).long()], dim=1)
    visible = torch.zeros(len(prompts), 1, width + size, width + size, dtype=torch.bool)
    visible[:, 0, :width, :width] = torch.ones(width, width, dtype=torch.bool).tril()
    visible[:, 0, width:, :width] = (torch.arange(width) < lengths[:, None])[:, None]
    visible[:, 0, width:, width:] = tree.visible()
    nodes = torch.cat([lengths[:, None] - 1, torch.arange(width, width + size).expand(len(prompts), -1)], dim=1)
    places = torch.zeros(ids.shape, dtype=torch.bool).scatter(1, nodes, True)
    device = net.device
    whole = {
        "input_ids": ids.to(device), "attention_mask": attention_mask(net, visible.to(device)), "position_ids": position.to(device),
    }  # fmt: skip
    with abridged(net, whole, places.to(device)) as (inputs, kept):
        logits: Tensor = net(**inputs, logits_to_keep=kept, use_cache=False).logits
    return logits.view(*nodes.shape, -1)


def _with_cache(net: Any, prompts: Sequence[Tokens], candidates: Sequence[Tokens], tree: Tree) -> Tensor:
    """(P, 1 + S, V) the same, from each prompt's cache repeated for each candidate."""
    return torch.cat([_from_cache(net, prompt, candidates, tree) for prompt in prompts])


def _from_cache(net: Any, prompt: Tokens, candidates: Sequence[Tokens], tree: Tree) -> Tensor:
    device = net.device
    prefill = net(input_ids=torch.tensor([list(prompt)], device=device), use_cache=True, logits_to_keep=1)
    tokens = _read_tokens(candidates).to(device)
    first: Tensor = prefill.logits
    if not tokens.shape[1]:
        return first
    cache = prefill.past_key_values
    cache.batch_repeat_interleave(len(candidates))
    # Padding stands after each candidate's end, where causal attention keeps it out of sight; no mask is needed.
    rest = net(input_ids=tokens, past_key_values=cache, use_cache=True).logits
    rows, columns = tree.places()
    return torch.cat([first[0], rest[rows[1:], columns[1:] - 1]])[None]


def _in_rows(net: Any, prompts: Sequence[Tokens], candidates: Sequence[Tokens], tree: Tree) -> Tensor:
    """(P, 1 + S, V) the same, from a whole row for each candidate below a prompt, padded on the right."""
    tokens, found = _read_tokens(candidates), []
    for prompt in prompts:
        ids = torch.cat([torch.tensor(list(prompt)).expand(len(tokens), -1), tokens], dim=1).to(net.device)
        said = [net(input_ids=part, use_cache=False).logits[:, len(prompt) - 1 :] for part in ids.split(ROWS)]
        found.append(torch.cat(said)[tree.places()])
    return torch.stack(found)


def _one_by_one(net: Any, prompts: Sequence[Tokens], candidates: Sequence[Tokens], tree: Tree) -> Tensor:
    """(P, C x L, V) the logits at each candidate's tokens, by the plain pass: one row at a time, without padding."""
    found: list[Tensor] = []
    for prompt in prompts:
        for candidate in candidates:
            forget_longer_passes(net)
            ids = torch.tensor([[*prompt, *candidate]], device=net.device)
            found.append(net(input_ids=ids, use_cache=False).logits[0, len(prompt) - 1 : -1])
    padded: Tensor = nn.utils.rnn.pad_sequence(found, batch_first=True)
    return padded.reshape(len(prompts), -1, padded.shape[-1])


def _nodes(way: str, tree: Tree, length: int) -> Tensor:
    """(C, L) where a way's logits predict each token. By the plain pass candidates share nothing: rotations may depend on the length."""
    if way == PLAIN:
        return torch.arange(len(tree.paths) * length).view(-1, length)
    return tree.predictor(length)


def _read_tokens(candidates: Sequence[Tokens]) -> Tensor:
    """(C, L - 1) what is read of each candidate: all but its last token."""
    return nn.utils.rnn.pad_sequence([torch.tensor(list(c[:-1]), dtype=torch.long) for c in candidates], batch_first=True)


PLAIN = "single rows"
# From the fastest to the plain pass (fast_paths.py).
WAYS = {"tree": _packed, "repeated cache": _with_cache, "padded rows": _in_rows, PLAIN: _one_by_one}


def _read(logits: Tensor, node: Tensor, tokens: Tensor) -> tuple[Tensor, Tensor]:
    """(P, C, L) log-likelihood and margin of each token at its node.   Args: (P, 1 + S, V), (C, L), (C, L)."""
    chosen = logits[:, node, tokens]
    best, index = logits.max(-1)
    other, said = best[:, node], index[:, node] == tokens
    if said.any():
        # Where the token itself is the largest, the largest of the others is looked up.
        prompt, candidate, place = said.nonzero(as_tuple=True)
        rows = logits[prompt, node[candidate, place]]
        other[said] = rows.scatter(-1, tokens[candidate, place][:, None], -torch.inf).amax(-1)
    return chosen - logits.logsumexp(-1)[:, node], chosen - other
