"""Generation in a batch that stays full, against transformers' own `generate` and against one row at a time."""

import itertools

import pytest
import torch
from test_likelihood import net_of
from tokenizers import AddedToken, Tokenizer, models
from transformers import PreTrainedTokenizerFast

from unlearn_lightning.inference import generation
from unlearn_lightning.inference.generation import Sampling, generate

PROMPTS = [[6, 7, 8, 9], [11], [8, 8, 6, 5, 9, 12, 13], [11, 12], [30, 31, 32, 33, 34]]


def lively(make_backbone, architecture="llama", lora=None):
    """A net whose responses end at different lengths: ends are 32 of 320 tokens."""
    net = net_of(make_backbone, architecture, lora)
    with torch.no_grad():
        net.get_input_embeddings().weight.mul_(10)
    net.generation_config.eos_token_id = list(range(40, 72))
    return net


@pytest.mark.parametrize(("architecture", "adapted"), list(itertools.product(["llama", "qwen2"], [False, True])))
def test_greedy_equals_transformers_generate(make_backbone, lora, architecture, adapted):
    net, tokenizer = lively(make_backbone, architecture, lora if adapted else None), make_backbone().load_tokenizer()
    ends = generation.end_tokens(net, tokenizer)
    expected = []
    for prompt in PROMPTS:
        ids = torch.tensor([prompt])
        output = net.generate(
            ids, attention_mask=torch.ones_like(ids), max_new_tokens=12, do_sample=False, eos_token_id=ends, pad_token_id=0
        )
        expected.append([tokenizer.decode(output[0, len(prompt) :], skip_special_tokens=True)])
    for rows in (1, 2, 64):
        assert generate(net, tokenizer, PROMPTS, 12, batch_size=rows) == expected


@pytest.mark.parametrize(("architecture", "adapted"), list(itertools.product(["llama", "qwen2"], [False, True])))
def test_samples_depend_neither_on_the_batch_nor_on_the_other_prompts(make_backbone, lora, architecture, adapted):
    net, tokenizer = lively(make_backbone, architecture, lora if adapted else None), make_backbone().load_tokenizer()
    together = generate(net, tokenizer, PROMPTS, 12, attempts=3, temperature=1.0, batch_size=64)
    assert len({text for texts in together for text in texts}) > 10
    assert generate(net, tokenizer, PROMPTS, 12, attempts=3, temperature=1.0, batch_size=2) == together
    for prompt, texts in zip(PROMPTS, together, strict=True):
        assert generate(net, tokenizer, [prompt], 12, attempts=3, temperature=1.0, batch_size=5) == [texts]
    assert generate(net, tokenizer, PROMPTS, 12, attempts=2, temperature=1.0) == [texts[:2] for texts in together]
    assert generate(net, tokenizer, PROMPTS, 12, attempts=3, temperature=1.0, seed=1) != together


@torch.no_grad()
def test_samples_equal_a_plain_loop_without_cache_and_batch(make_backbone):
    net, how = lively(make_backbone).eval(), Sampling(8, 2, 0.7, 5, frozenset(range(40, 72)))
    got = dict(generation._continuous(net, PROMPTS, how, 3))
    for (i, attempt), said in got.items():
        tokens = list(PROMPTS[i])
        for random in how.randoms(PROMPTS[i], attempt).tolist():
            probabilities = (net(torch.tensor([tokens])).logits[0, -1].double() / 0.7).softmax(-1)
            tokens.append(int((probabilities.cumsum(-1) <= random).sum()))
            if tokens[-1] in how.ends:
                break
        assert said == tokens[len(PROMPTS[i]) :]
    assert len({len(said) for said in got.values()}) > 1, "all of one length: nothing left the batch early"


def test_sampling_follows_the_probabilities():
    how = Sampling(1, 1, 2.0, 0, frozenset())
    logits = 2 * torch.tensor([0.5, 1e-12, 0.2, 0.3]).log().expand(4000, -1)
    randoms = torch.stack([how.randoms([i], 0)[0] for i in range(4000)])
    shares = torch.bincount(how.choose(logits, randoms), minlength=4) / 4000
    # four standard errors: 4 * sqrt(0.25 / 4000)
    torch.testing.assert_close(shares, torch.tensor([0.5, 0.0, 0.2, 0.3]), atol=0.032, rtol=0)
    assert how.choose(logits[:2], torch.tensor([0.0, 1.0])).tolist() == [0, 3], "the ends of the interval"


def test_models_that_take_no_masks_are_generated_one_by_one(make_backbone, monkeypatch):
    net, tokenizer = lively(make_backbone), make_backbone().load_tokenizer()
    greedy = generate(net, tokenizer, PROMPTS, 12)
    monkeypatch.setattr(generation, "takes_masks", lambda net: False)
    assert generate(net, tokenizer, PROMPTS, 12) == greedy
    state = torch.get_rng_state()
    sampled = generate(net, tokenizer, PROMPTS[:2], 12, attempts=2, temperature=1.0)
    assert sampled[1] == generate(net, tokenizer, PROMPTS[1:2], 12, attempts=2, temperature=1.0)[0]
    assert torch.equal(torch.get_rng_state(), state), "the global random state moved"


def test_a_lent_chat_templates_end_of_turn_ends_a_response():
    """A base model knows its instruct sibling's end of turn as a special token that has no role of its own."""
    raw = Tokenizer(models.BPE(vocab={letter: i for i, letter in enumerate("ab ")}, merges=[]))
    raw.add_special_tokens([AddedToken(name, special=True) for name in ("<|begin|>", "<|end_of_text|>", "<|eot|>")])
    template = "{% for m in messages %}{{ m['content'] + '<|eot|>' }}{% endfor %}"
    base = PreTrainedTokenizerFast(tokenizer_object=raw, bos_token="<|begin|>", eos_token="<|end_of_text|>", chat_template=template)
    ends = generation.end_tokens(object(), base)
    assert ends == base.convert_tokens_to_ids(["<|end_of_text|>", "<|eot|>"])
