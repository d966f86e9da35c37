"""What a pass leaves out changes no value and no gradient; the plain computation is the oracle."""

from contextlib import contextmanager

import pytest
import torch
from bitsandbytes.nn import Linear8bitLt
from peft import IA3Config, LoraConfig, get_peft_model
from torch.utils.flop_counter import FlopCounterMode
from transformers import AutoConfig, AutoModelForCausalLM

from unlearn_lightning.data import Encoded, collate
from unlearn_lightning.inference import prefix_sharing
from unlearn_lightning.inference.fast_paths import KNOWN
from unlearn_lightning.inference.likelihood import response_logits, token_log_likelihood
from unlearn_lightning.models.adapters import reference_mode
from unlearn_lightning.models.backbone import Lora

HEADER = [5, 6, 7, 8] * 9
ROWS = [Encoded("a", [*HEADER, 9, 10, 11], [9, 10]), Encoded("b", [*HEADER, 7], [11, 12, 13, 5, 6]), Encoded("c", [*HEADER, 8, 8], [14])]
# What these rows share goes on into their responses, where it must not be taken as shared.
SAME = [Encoded(str(i), HEADER, [9, 10, 11]) for i in range(5)] + [Encoded("other", HEADER, [9, 10])]
SIZES = {
    "vocab_size": 64, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 3, "num_attention_heads": 4,
    "num_key_value_heads": 2, "head_dim": 8, "max_position_embeddings": 64, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2,
}  # fmt: skip


def model(kind, **more):
    torch.manual_seed(1)
    config = AutoConfig.for_model(kind, **{**SIZES, **more})
    for name in ("resid_pdrop", "embd_pdrop", "attn_pdrop"):
        if hasattr(config, name):
            setattr(config, name, 0.0)
    attention = "eager" if kind == "gemma2" else more.get("attn_implementation", "sdpa")
    net = AutoModelForCausalLM.from_config(config, attn_implementation=attention)
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape))
    return net.train()


@contextmanager
def whole_passes(net):
    prefix_sharing.take_shortcuts(net, False)
    yield
    prefix_sharing.take_shortcuts(net, True)


def outcome(net, batch, way="full"):
    """Log-likelihoods, and the gradients of a weighted sum of them."""
    net.zero_grad()
    values = token_log_likelihood(net, batch.input_ids, batch.attention_mask, batch.response_mask, way)
    (values * torch.arange(values.numel(), device=values.device).view_as(values)).sum().backward()
    return [values.detach(), *(p.grad.clone() for p in net.parameters() if p.grad is not None)]


def assert_same(net, batch, way="full", tolerance=1e-5):
    assert prefix_sharing.possible(net)
    ours = outcome(net, batch, way)
    with whole_passes(net):
        oracle = outcome(net, batch)
    assert len(ours) == len(oracle) > 3
    for one, other in zip(ours, oracle, strict=True):
        torch.testing.assert_close(one, other, atol=2 * tolerance * max(1.0, other.abs().max().item()), rtol=tolerance)


@pytest.mark.parametrize("rows", [ROWS, SAME], ids=["unequal", "equal"])
@pytest.mark.parametrize("kind", KNOWN)
def test_values_and_gradients_are_those_of_the_plain_pass(kind, rows):
    assert_same(model(kind), collate(rows, 0))


@pytest.mark.parametrize("way", ["full", "chunked"])
@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_other_ways_of_attention_and_of_the_vocabulary(attention, way):
    assert_same(model("llama", attn_implementation=attention), collate(ROWS, 0), way)


def test_rows_padded_on_the_left():
    assert_same(model("llama"), collate(ROWS, 0, padding_side="left"))


def test_adapters_and_the_reference_below_them(make_backbone, lora):
    net, batch = make_backbone(lora=lora).load_for_unlearning(), collate(ROWS, 0)
    with torch.no_grad():
        for parameter in net.parameters():
            if parameter.requires_grad:
                parameter.add_(0.02 * torch.randn(parameter.shape))
    assert_same(net, batch)
    inputs = batch.input_ids, batch.attention_mask, batch.response_mask
    with reference_mode(net):
        ours = response_logits(net, *inputs)
        with whole_passes(net):
            torch.testing.assert_close(ours, response_logits(net, *inputs), atol=1e-5, rtol=1e-5)


def flops(net, batch):
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        token_log_likelihood(net, batch.input_ids, batch.attention_mask, batch.response_mask)
    return sum(n for operation, n in counter.get_flop_counts()["Global"].items() if "mm" in str(operation))


def test_the_work_that_is_left_out_by_hand():
    net, batch = model("llama"), collate(ROWS, 0)
    # q, k, v, o and the MLP's three of each layer; multiplied and added.
    spared, kept = 2 * (2 * 32 * 32 + 3 * 32 * 48), 2 * 2 * 32 * 16
    head, tokens, responses = 2 * 32 * 64, batch.input_ids.numel(), int(batch.response_mask.sum())
    with whole_passes(net):
        assert flops(net, batch) == 3 * (spared + kept) * tokens + head * responses
    # The header passes once, with its last layer, as that is where its last keys and values are made; the rest passes for each row.
    rest = tokens - 3 * len(HEADER)
    first = 3 * (spared + kept) * len(HEADER)
    assert flops(net, batch) == first + (2 * (spared + kept) + kept) * rest + spared * responses + head * responses


def test_little_in_common_is_not_worth_a_pass():
    net, batch = model("llama"), collate([Encoded("a", [5, 6, 7], [9] * 30), Encoded("b", [5, 8, 7], [9] * 30)], 0)
    passes = []
    net.register_forward_pre_hook(lambda _, args, kwargs: passes.append(kwargs["input_ids"].shape), with_kwargs=True)
    token_log_likelihood(net, batch.input_ids, batch.attention_mask, batch.response_mask)
    assert passes == [(2, 33)]


def test_nothing_is_left_out_where_it_would_change_the_result(make_backbone):
    def loaded(**settings):
        return make_backbone(**settings).load_for_fine_tuning()

    assert prefix_sharing.possible(loaded())
    assert not prefix_sharing.possible(loaded(shortcuts=False))
    assert not prefix_sharing.possible(loaded(shortcuts=False, lora=Lora(rank=4)))
    assert not prefix_sharing.possible(loaded(lora=Lora(rank=4, dropout=0.1)))
    assert prefix_sharing.possible(loaded(lora=Lora(rank=4, dropout=0.1)).eval())
    assert not prefix_sharing.possible(loaded(gradient_checkpointing=True))
    assert prefix_sharing.possible(loaded(gradient_checkpointing=True).eval())
    assert not prefix_sharing.possible(loaded(compile="eager"))
    for setting in ("attention_dropout", "residual_dropout", "router_jitter_noise"):
        net = model("llama")
        setattr(net.config, setting, 0.1)
        assert not prefix_sharing.possible(net)
        assert prefix_sharing.possible(net.eval())
    net.model.layers[0].mlp.up_proj = Linear8bitLt(32, 48, bias=False, has_fp16_weights=False)
    assert not prefix_sharing.possible(net)
    # Its rotations depend on how long a pass is: those of the beginning would be other ones.
    longrope = {"rope_type": "longrope", "short_factor": [1.0] * 4, "long_factor": [4.0] * 4, "original_max_position_embeddings": 40}
    assert not prefix_sharing.possible(model("phi3", rope_parameters={"rope_theta": 1e4, **longrope}))
    assert not prefix_sharing.possible(model("llama", rope_parameters={"rope_theta": 1e4, "rope_type": "dynamic", "factor": 4.0}))
    assert not prefix_sharing.possible(model("olmo"))
    for adapter in (IA3Config(task_type="CAUSAL_LM"), LoraConfig(target_modules="all-linear", alora_invocation_tokens=[8])):
        assert not prefix_sharing.possible(get_peft_model(model("llama"), adapter))
