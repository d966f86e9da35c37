"""Every fast path of every architecture against one unpadded row at a time without a cache; what the gate decides and says."""

import pytest
import torch
from study_runs import fit, settings
from test_candidates import oracle as scored
from test_shortcuts import SIZES, model
from transformers import AutoConfig, AutoModelForCausalLM

from unlearn_lightning.data import Encoded, collate
from unlearn_lightning.inference import fast_paths, generation, likelihood
from unlearn_lightning.inference.cross_entropy import _altered
from unlearn_lightning.inference.fast_paths import KNOWN
from unlearn_lightning.inference.generation import Sampling
from unlearn_lightning.inference.likelihood import WAYS, response_logits, token_log_likelihood
from unlearn_lightning.inference.multiple_choice import score_candidates

MAMBA2 = {"mamba_n_heads": 4, "mamba_d_head": 16, "mamba_d_state": 4, "mamba_n_groups": 1, "mamba_chunk_size": 4}
EXPERTS = {"num_experts": 2, "num_local_experts": 2, "num_experts_per_tok": 1}
SMALL = {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 64}
# What each needs besides SIZES; windows and chunks are shorter than the rows.
UNKNOWN = {
    "mpt": {"d_model": 32, "n_heads": 4, "n_layers": 2, "expansion_ratio": 2, "max_seq_len": 64},
    "gpt_neo": {"num_layers": 2, "num_heads": 4, "attention_types": [[["global", "local"], 1]], "window_size": 4},
    "minimax": {**EXPERTS, "layer_types": ["linear_attention", "full_attention"], "block_size": 4},
    "bloom": {"n_head": 4, "n_layer": 2},
    "falcon": {"alibi": True, "num_kv_heads": 2, "ffn_hidden_size": 48, "head_dim": None},
    "mamba": {"state_size": 4},
    "recurrent_gemma": {"lru_width": 32, "attention_window_size": 8, "block_types": ["recurrent", "attention"]},
    "jamba": {**EXPERTS, "attn_layer_period": 2, "attn_layer_offset": 1, "mamba_d_state": 4, "use_mamba_kernels": False},
    "bamba": {**MAMBA2, "attn_layer_indices": [1]},
    "falcon_h1": {**MAMBA2, "mamba_d_ssm": 64},
    "granitemoehybrid": {**MAMBA2, **EXPERTS, "layer_types": ["mamba", "attention"], "shared_intermediate_size": 32},
    "lfm2": {"layer_types": ["conv", "full_attention"], "block_multiple_of": 8},
    "qwen3_next": {
        **EXPERTS, "layer_types": ["linear_attention", "full_attention"], "linear_num_value_heads": 2, "linear_num_key_heads": 2,
        "linear_key_head_dim": 8, "linear_value_head_dim": 8, "moe_intermediate_size": 16, "shared_expert_intermediate_size": 16,
    },
    "rwkv": {"attention_hidden_size": 32}, "openai-gpt": SMALL, "opt": {"ffn_dim": 48, "word_embed_proj_dim": 32}, "olmo": {},
    "cohere2": {"sliding_window": 4, "layer_types": ["sliding_attention", "full_attention"]},
}  # fmt: skip
# Prompts of unequal lengths, one of them a single token; candidates with a shared beginning.
PROMPTS, CANDIDATES = [[6, 7, 8, 9], [11], [8, 8, 6, 5, 9, 12, 13]], [[9, 10, 11], [9, 10], [9, 14, 15, 16], [13]]
ROWS = [Encoded("a", [6, 7, 8, 9, 10], [9, 10]), Encoded("b", [7], [11, 12, 13, 5, 6]), Encoded("c", [8, 8, 8], [14])]
GREEDY = Sampling(5, 1, 0.0, 0, frozenset(range(20, 26)))


def unknown(kind, **more):
    torch.manual_seed(1)
    sizes = {name: value for name, value in {**SIZES, "num_hidden_layers": 2, **UNKNOWN[kind], **more}.items() if value is not None}
    net = AutoModelForCausalLM.from_config(AutoConfig.for_model(kind, **sizes))
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape))
    return net.eval()


def greedy(net, prompt):
    said = []
    while len(said) < GREEDY.max_new_tokens and (not said or said[-1] not in GREEDY.ends):
        fast_paths.forget_longer_passes(net)
        said.append(int(net(torch.tensor([[*prompt, *said]]), use_cache=False).logits[0, -1].argmax()))
    return said


def generated(net, prompts, batch_size):
    way = generation.chosen_way(net, prompts, GREEDY.max_new_tokens, GREEDY.ends)
    said = dict(generation.WAYS[way](net, prompts, GREEDY, batch_size))
    return [said[i, 0] for i in range(len(prompts))]


def assert_right(net, prompts=PROMPTS, rows=ROWS):
    """Candidates, likelihoods as they are asked for, and greedy responses equal the oracle's."""

    def expected(prompt, response):
        fast_paths.forget_longer_passes(net)
        return scored(net, prompt, response)

    scores = score_candidates(net, prompts, CANDIDATES)
    for i, prompt in enumerate(prompts):
        for k, candidate in enumerate(CANDIDATES):
            for found, right in zip((scores.token_log_lik, scores.token_margin), expected(prompt, candidate), strict=True):
                torch.testing.assert_close(found[i, k, : len(candidate)].double(), right, atol=1e-4, rtol=0)
    right = torch.cat([expected(row.prompt_ids, row.response_ids)[0] for row in rows])
    # A head whose result is altered is refused with chunks when a backbone is loaded.
    for side, cross_entropy in (("left", "full"), ("right", "full" if _altered(net) else "chunked")):
        batch = collate(rows, 0, padding_side=side)
        inputs = batch.input_ids, batch.attention_mask, batch.response_mask
        values = token_log_likelihood(net, *inputs, cross_entropy)
        torch.testing.assert_close(values[batch.response_mask].double(), right, atol=1e-4, rtol=0)
        log_p = response_logits(net, *inputs).double().log_softmax(-1)
        torch.testing.assert_close(log_p.gather(-1, batch.input_ids[batch.response_mask][:, None])[:, 0], right, atol=1e-4, rtol=0)
    assert generated(net, prompts, batch_size=2) == [greedy(net, prompt) for prompt in prompts]


@pytest.mark.parametrize("kind", UNKNOWN)
@torch.no_grad()
def test_untested_architectures_give_what_their_plain_pass_gives(kind):
    assert_right(unknown(kind))


@pytest.mark.parametrize("kind", KNOWN)
@torch.no_grad()
def test_tested_architectures_take_the_fastest_way_unseen(kind, capsys):
    window = {"sliding_window": 4} if kind in ("mistral", "gemma2", "gemma3_text") else {}
    net = model(kind, num_hidden_layers=2, **window).eval()
    assert_right(net)
    assert not hasattr(net, "fast_path_decisions")
    assert not capsys.readouterr().out


@torch.no_grad()
def test_a_model_that_sees_images_as_well_is_right_on_texts(capsys):
    """Its decoder is a tested one, and lies in a part of its configuration."""
    text = {**SIZES, "num_hidden_layers": 2, "sliding_window": 4, "query_pre_attn_scalar": 8}
    vision = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "image_size": 28}
    net = model("gemma3", text_config=text, vision_config={**vision, "patch_size": 14}, mm_tokens_per_image=4).eval()
    assert_right(net)
    assert not capsys.readouterr().out


ROTATIONS = {
    "dynamic": ("llama", {"rope_type": "dynamic", "factor": 4.0}),
    "longrope": (
        "phi3", {"rope_type": "longrope", "short_factor": [1.0] * 4, "long_factor": [4.0] * 4, "original_max_position_embeddings": 12},
    ),
}  # fmt: skip


@pytest.mark.parametrize("kind", ROTATIONS)
@torch.no_grad()
def test_rotations_that_depend_on_the_length_depend_on_no_other_row_and_no_earlier_pass(kind, capsys):
    architecture, rope = ROTATIONS[kind]
    positions = {"max_position_embeddings": 12 if kind == "dynamic" else 64, "original_max_position_embeddings": 12}
    net = model(architecture, num_hidden_layers=2, rope_parameters={"rope_theta": 1e4, **rope}, **positions).eval()
    assert fast_paths.settled_length(net) == 12
    prompts = [[5, 6, 7, 8] * 2, [9, 5, 8], [11, 7, 9, 5, 6] * 4]
    rows = [Encoded("a", [6, 7, 8], [9, 10]), Encoded("b", [5, 6, 7, 8] * 5, [9, 5]), Encoded("c", [9, 5, 8, 6] * 3, [6, 7])]
    oracle = [greedy(net, prompt) for prompt in prompts]
    # What is not longer than 12 takes the fast way, also after a long pass, and nothing is said.
    assert generated(net, prompts[1:2], 1) == oracle[1:2]
    assert not capsys.readouterr().out
    for size in (1, 3):
        assert generated(net, prompts, size) == oracle
    assert_right(net, prompts, rows)
    assert capsys.readouterr().out.count("Some sequences are longer than the 12 positions") == 1


def test_what_is_wrong_is_said_once_and_training_is_left_alone(capsys):
    net = unknown("mpt", attn_implementation=None).train()
    net.transformer.blocks[0].eval()
    modes, state = [module.training for module in net.modules()], torch.get_rng_state()
    for _ in range(2):
        score_candidates(net, PROMPTS, CANDIDATES)
    assert [module.training for module in net.modules()] == modes
    assert torch.equal(torch.get_rng_state(), state)
    line, *rest = capsys.readouterr().out.splitlines()
    assert not rest
    assert line.startswith(
        "mpt is not among the tested architectures, so it was compared with its plain pass: candidates takes 'repeated cache' (tree: 0."
    )
    assert line.endswith(" nats off the plain pass, more than 0.0001).")


def passes_of(net):
    shapes = []
    net.register_forward_pre_hook(lambda _, args, kwargs: shapes.append(tuple(kwargs["input_ids"].shape)), with_kwargs=True)
    return shapes


@torch.no_grad()
def test_one_comparison_serves_all_that_is_not_longer():
    net = unknown("olmo")
    shapes = passes_of(net)
    batch = collate(ROWS, 0)
    inputs = batch.input_ids, batch.attention_mask, batch.response_mask
    token_log_likelihood(net, *inputs)
    assert shapes == [(1, 7), (1, 3), (2, 7), (3, 7)], "the plain pass of two rows, the fast one of both, and the batch itself"
    token_log_likelihood(net, *inputs)
    token_log_likelihood(net, *(part[:, :6] for part in inputs))
    assert shapes[4:] == [(3, 7), (3, 6)]
    wider = collate([Encoded("d", [5, 6, 7, 8] * 3, [9])], 0)
    token_log_likelihood(net, wider.input_ids, wider.attention_mask, wider.response_mask)
    assert shapes[6:] == [(1, 13), (1, 6), (2, 13), (1, 13)], "a window of 8 would show only now"


@pytest.mark.parametrize("fault", ["exception", "nan", "other"])
@torch.no_grad()
def test_a_way_that_fails_or_differs_is_left_for_the_next_one(fault, capsys):
    right, tried = torch.tensor([-1.0, -2.0]), []

    def values(way):
        tried.append(way)
        if way == "fast" and fault == "exception":
            raise KeyError("no such cache")
        return right * {"fast": {"nan": torch.nan, "other": 1.001}.get(fault), "slower": 1 + 1e-6, "plain": 1.0}[way]

    net = unknown("olmo")
    assert fast_paths.choose(net, "candidates", ("fast", "slower", "plain"), 5, values) == "slower"
    assert tried == ["plain", "fast", "slower"]
    assert {"exception": "fast: KeyError", "nan": "fast: nan nats off", "other": "fast: 0.002 nats off"}[fault] in capsys.readouterr().out


@pytest.mark.parametrize(("dtype", "bound"), [(torch.float32, 1e-4), (torch.float16, 3e-2), (torch.bfloat16, 2e-1)])
def test_the_bound_is_that_of_the_computations_dtype(dtype, bound):
    net = unknown("olmo")
    with torch.autocast("cpu", dtype, enabled=dtype != torch.float32):
        assert fast_paths._bound(net) == bound
    assert fast_paths._bound(net.to(dtype)) == bound


PROBES = [
    {"class_path": "ForgetLikelihood", "init_args": {"limit": 3, "every_n_steps": 0, "label": "Ann"}},
    {"class_path": "GSM8KAccuracy", "init_args": {"limit": 2, "every_n_steps": 0, "max_new_tokens": 3, "attempts": 1, "temperature": 0.0}},
]


def saved(make_backbone, folder, kind, **more):
    """A model of an untested architecture with the tests' tokenizer, as a folder."""
    tokenizer = make_backbone().load_tokenizer()
    net = unknown(kind, vocab_size=len(tokenizer), eos_token_id=tokenizer.eos_token_id, **more)
    net.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return str(folder)


def test_a_run_decides_before_it_measures_and_says_so_in_one_line(make_backbone, corpus, questions, tmp_path, capsys):
    sizes = {"max_position_embeddings": 516, "window_size": 16}
    backbone = {"model": saved(make_backbone, tmp_path / "base", "gpt_neo", **sizes), "scratch": None, "lora": {"rank": 2}}
    more = {"model": {"init_args": {"backbone": backbone}}, "trainer": {"max_steps": 1, "callbacks": PROBES}}
    net = fit(settings(corpus, questions, tmp_path / "run", **more)).model.net
    lines = [line for line in capsys.readouterr().out.splitlines() if "tested architectures" in line]
    assert len(lines) == 1
    assert "candidates takes 'repeated cache' (tree: " in lines[0]
    assert "generation takes 'one by one' (refilled batch: " in lines[0]
    assert {key[0] for key in net.fast_path_decisions.made} == {"likelihood", "candidates", "generation"}


def test_processes_take_the_slowest_of_their_decisions(monkeypatch, capsys):
    net = unknown("olmo")
    for name, value in {"is_initialized": lambda: True, "get_rank": lambda: 0}.items():
        monkeypatch.setattr(torch.distributed, name, value)
    monkeypatch.setattr(torch.distributed, "all_reduce", lambda way, operation: way.fill_(1))
    with fast_paths.agreed(net):
        assert fast_paths.choose(net, "candidates", ("fast", "plain"), 5, lambda way: torch.zeros(2)) == "fast"
    assert fast_paths.choose(net, "candidates", ("fast", "plain"), 5, lambda way: torch.zeros(2)) == "plain"
    assert capsys.readouterr().out.count("candidates takes 'plain' (as another process found)") == 1


@pytest.mark.parametrize("kind", ["mpt", "recurrent_gemma", "qwen3_next"])
def test_gradients_of_an_untested_architecture_are_those_of_single_rows(kind):
    net, batch = unknown(kind), collate(ROWS, 0, padding_side="left")
    inputs = batch.input_ids, batch.attention_mask, batch.response_mask
    token_log_likelihood(net, *inputs).sum().backward()
    ours = [parameter.grad.clone() for parameter in net.parameters() if parameter.grad is not None]
    net.zero_grad()
    for row in ROWS:
        logits = net(torch.tensor([[*row.prompt_ids, *row.response_ids]]), use_cache=False).logits[0, len(row.prompt_ids) - 1 : -1]
        logits.log_softmax(-1).gather(-1, torch.tensor(row.response_ids)[:, None]).sum().backward()
    for one, parameter in zip(ours, [p for p in net.parameters() if p.grad is not None], strict=True):
        torch.testing.assert_close(one, parameter.grad, atol=1e-3, rtol=1e-4)


def test_with_shards_nothing_is_compared_after_the_start(monkeypatch):
    net, tried = unknown("olmo"), []

    def values(way):
        tried.append(way)
        return torch.zeros(2)

    def chosen(length):
        return fast_paths.choose(net, "candidates", ("fast", "plain"), length, values)

    monkeypatch.setattr(fast_paths, "sharded", lambda net: True)
    assert [chosen(5), chosen(4), chosen(6), chosen(5)] == ["fast", "fast", "plain", "fast"]
    assert tried == ["plain", "fast"]


@torch.no_grad()
def test_rows_of_their_own_are_refused_in_shards_while_training(monkeypatch):
    net, batch = unknown("olmo"), collate(ROWS, 0)
    net.fast_path_decisions = fast_paths.Decisions({("likelihood", WAYS, "sdpa"): fast_paths.Decision(2, 99)})
    inputs = batch.input_ids, batch.attention_mask, batch.response_mask
    monkeypatch.setattr(likelihood, "sharded", lambda net: True)
    assert token_log_likelihood(net, *inputs).shape == (3, 7)
    with torch.enable_grad(), pytest.raises(ValueError, match=r"FSDP2 needs the same number of passes.*Set trainer.strategy to ddp"):
        token_log_likelihood(net, *inputs)
