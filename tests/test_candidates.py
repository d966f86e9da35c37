"""Candidates scored as a tree below each prompt, against one row for each pair."""

import itertools

import pytest
import torch
from test_likelihood import net_of

from unlearn_lightning.inference import multiple_choice
from unlearn_lightning.inference.multiple_choice import Tree, score_candidates

PROMPTS = [[6, 7, 8, 9], [11], [8, 8, 6, 5, 9, 12, 13]]
# Shared beginnings, one candidate that begins another, one that occurs twice, and one of a single token.
CANDIDATES = [[9, 10, 11], [9, 10], [12], [9, 14, 15, 16, 17], [9, 10, 11], [13, 10, 11]]


def oracle(net, prompt, candidate):
    """Log-likelihood and margin of each token from all logits of one unpadded row, in float64."""
    logits = net(input_ids=torch.tensor([prompt + candidate])).logits[0].double()[len(prompt) - 1 : -1]
    tokens = torch.tensor(candidate)[:, None]
    others = logits.scatter(-1, tokens, -torch.inf).amax(-1)
    return logits.log_softmax(-1).gather(-1, tokens)[:, 0], logits.gather(-1, tokens)[:, 0] - others


@pytest.mark.parametrize(
    ("architecture", "adapted", "way"), list(itertools.product(["llama", "qwen2"], [False, True], ["sdpa", "eager", "repeated cache"]))
)
def test_scores_equal_one_row_for_each_pair(make_backbone, lora, architecture, adapted, way, monkeypatch):
    net = net_of(make_backbone, architecture, lora if adapted else None)
    with torch.no_grad():
        net.get_input_embeddings().weight.mul_(20)  # the largest logit is then often the token itself
    if way == "repeated cache":
        monkeypatch.setattr(multiple_choice, "takes_masks", lambda net: False)
    else:
        net.set_attn_implementation(way)
    scores = score_candidates(net, PROMPTS, CANDIDATES)
    assert scores.token_log_lik.shape == (3, 6, 5)
    assert scores.token_log_lik[:, ~scores.mask].abs().sum() == 0
    for (i, prompt), (k, candidate) in itertools.product(enumerate(PROMPTS), enumerate(CANDIDATES)):
        log_lik, margin = oracle(net, prompt, candidate)
        n = len(candidate)
        assert scores.mask[k].sum() == n
        torch.testing.assert_close(scores.token_log_lik[i, k, :n].double(), log_lik, atol=2e-5, rtol=0)
        torch.testing.assert_close(scores.token_margin[i, k, :n].double(), margin, atol=2e-5, rtol=0)


def test_one_token_candidates(make_backbone):
    scores = score_candidates(make_backbone().load_base().eval(), [[6, 7]], [[9], [10]])
    assert scores.token_log_lik.shape == (1, 2, 1)
    assert torch.exp(scores.token_log_lik).sum() < 1


def test_shared_beginnings_are_one_branch():
    tree = Tree([[9, 10, 11], [9, 10], [9, 14, 15]])
    # 9, then 10 and 14; last tokens are only predicted
    assert (tree.tokens, tree.depths, tree.parents) == ([9, 10, 14], [1, 2, 2], [0, 1, 1])
    assert tree.paths == [[0, 1, 2], [0, 1], [0, 1, 3]]
    assert tree.visible().tolist() == [[True, False, False], [True, True, False], [True, False, True]]


def test_a_margin_is_above_zero_where_greedy_decoding_would_say_the_token(make_backbone):
    net = make_backbone().load_base().eval()
    prompt = [6, 7, 8]
    said = net.generate(torch.tensor([prompt]), max_new_tokens=2, do_sample=False, eos_token_id=None)[0, 3:].tolist()
    scores = score_candidates(net, [prompt], [said, [said[0], (said[1] + 1) % 320]])
    assert (scores.token_margin[0] > 0).tolist() == [[True, True], [True, False]]
