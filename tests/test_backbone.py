"""Backbones: adapters in PEFT's format, frozen and fresh where they should be, and clear errors."""

import shutil

import pytest
import torch
from peft import PeftModel
from study_runs import command_fit, fit, settings, weights
from transformers import AutoModelForCausalLM, AutoTokenizer

from unlearn_lightning.backbone import Backbone, Lora, save_result
from unlearn_lightning.data import Encoded, collate
from unlearn_lightning.likelihood import token_log_likelihood

BATCH = collate([Encoded("a", [6, 7, 8], [9, 10])], pad_id=0)


def log_lik(net):
    with torch.no_grad():
        return token_log_likelihood(net.eval(), BATCH.input_ids, BATCH.attention_mask, BATCH.response_mask)


def saved_base(make_backbone, folder, architecture="llama"):
    """A base model on disk, as the Hub would have it."""
    backbone = make_backbone(architecture)
    save_result(backbone.load_base(), backbone.load_tokenizer(), folder)
    return str(folder / "model")


def trained_adapter(base, folder, lora):
    backbone = Backbone(model=base, lora=lora, seed=1)
    net = backbone.load_for_fine_tuning()
    with torch.no_grad():
        for p in net.parameters():
            if p.requires_grad:
                p.add_(0.05)
    save_result(net, backbone.load_tokenizer(), folder)
    return net, str(folder / "adapter")


@pytest.mark.parametrize("architecture", ["llama", "qwen2"])
def test_adapters_load_in_plain_peft_and_transformers(make_backbone, lora, tmp_path, architecture):
    base = saved_base(make_backbone, tmp_path, architecture)
    net, adapter = trained_adapter(base, tmp_path, lora)
    plain = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base), adapter)
    torch.testing.assert_close(log_lik(plain), log_lik(net))
    assert AutoTokenizer.from_pretrained(base).chat_template


def test_fine_tuning_continues_the_last_adapter(make_backbone, lora, tmp_path):
    base = saved_base(make_backbone, tmp_path)
    first, adapter = trained_adapter(base, tmp_path, lora)
    again = Backbone(model=base, lora=lora, adapter=adapter).load_for_fine_tuning()
    torch.testing.assert_close(log_lik(again), log_lik(first))
    trainable = [name for name, p in again.named_parameters() if p.requires_grad]
    assert trainable
    assert all("lora" in name for name in trainable)


def test_unlearning_freezes_it_and_trains_a_fresh_one(make_backbone, lora, tmp_path):
    base = saved_base(make_backbone, tmp_path)
    first, adapter = trained_adapter(base, tmp_path, lora)
    net = Backbone(model=base, lora=Lora(rank=2, alpha=4), adapter=adapter).load_for_unlearning()
    torch.testing.assert_close(log_lik(net), log_lik(first), atol=1e-5, rtol=0)
    assert all(p.shape[0] == 2 or p.shape[1] == 2 for p in net.parameters() if p.requires_grad)
    with net.disable_adapter():
        torch.testing.assert_close(log_lik(net), log_lik(first), atol=1e-5, rtol=0)


def test_adapters_stay_float32_on_a_bfloat16_model(make_backbone, lora, tmp_path):
    net = Backbone(model=saved_base(make_backbone, tmp_path), lora=lora, dtype="bfloat16").load_for_fine_tuning()
    kinds = {p.requires_grad: p.dtype for p in net.parameters()}
    assert kinds == {True: torch.float32, False: torch.bfloat16}


def test_models_come_in_training_mode_and_fresh_adapters_depend_on_the_seed_alone(make_backbone, lora, tmp_path):
    base = saved_base(make_backbone, tmp_path)
    torch.manual_seed(1)
    one = Backbone(model=base, lora=lora, seed=5).load_for_fine_tuning()
    torch.manual_seed(2)
    two = Backbone(model=base, lora=lora, seed=5).load_for_fine_tuning()
    assert one.training
    for a, b in zip(one.parameters(), two.parameters(), strict=True):
        assert torch.equal(a, b)


def test_an_adapter_of_another_backbone_is_refused(make_backbone, lora, tmp_path, corpus):
    base = saved_base(make_backbone, tmp_path / "a")
    _, adapter = trained_adapter(base, tmp_path / "a", lora)
    from unlearn_lightning.scratch import Scratch

    shapes = {"hidden": 32, "layers": 2, "intermediate": 64, "heads": 4, "kv_heads": 2}
    for name, change in {"wider": {"hidden": 48}, "shallower": {"layers": 1}}.items():
        other = Backbone(scratch=Scratch(**{**shapes, **change}, vocab_size=320, corpus=(corpus,)), lora=None)
        save_result(other.load_base(), other.load_tokenizer(), tmp_path / name)
        with pytest.raises(ValueError, match="does not fit this backbone"):
            Backbone(model=str(tmp_path / name / "model"), lora=lora, adapter=adapter).load_for_fine_tuning()


def test_missing_adapters_and_models_say_what_to_do(make_backbone, lora, tmp_path):
    base = saved_base(make_backbone, tmp_path)
    with pytest.raises(FileNotFoundError, match=r"No adapter in .*It holds full weights: set backbone\.model"):
        Backbone(model=base, lora=lora, adapter=base).load_for_fine_tuning()
    with pytest.raises(FileNotFoundError, match="must finish first"):
        Backbone(model=base, lora=lora, adapter=str(tmp_path / "none")).load_for_unlearning()
    with pytest.raises(FileNotFoundError, match="no model folder"):
        Backbone(model=str(tmp_path / "none" / "model")).load_base()
    with pytest.raises(ValueError, match=r"set backbone\.model to RUN/model instead"):
        Backbone(model=base, lora=None, adapter="somewhere")
    with pytest.raises(ValueError, match="needs `model`"):
        Backbone()


def test_a_tokenizer_without_chat_template_needs_its_instruct_sibling(make_backbone, tmp_path):
    base = saved_base(make_backbone, tmp_path / "instruct")
    shutil.copytree(base, tmp_path / "plain")
    (tmp_path / "plain" / "chat_template.jinja").unlink()
    with pytest.raises(ValueError, match=r"has no chat template\. Set backbone\.chat_template_from"):
        Backbone(model=str(tmp_path / "plain")).load_tokenizer()
    lent = Backbone(model=str(tmp_path / "plain"), chat_template_from=base).load_tokenizer()
    assert lent.chat_template == AutoTokenizer.from_pretrained(base).chat_template


def test_a_path_of_adapters_through_the_command(corpus, questions, tmp_path, make_backbone):
    base = saved_base(make_backbone, tmp_path / "base")

    def config(name, cls="StageFineTuning", adapter=None):
        backbone = {"model": base, "scratch": None, "lora": {"rank": 4, "alpha": 8}, "adapter": adapter}
        return settings(corpus, questions, tmp_path / name, cls, model={"init_args": {"backbone": backbone}})

    one = command_fit(config("one"))
    fit(config("two", adapter=str(one / "adapter")))
    fit(config("forgotten", "NPO", adapter=str(tmp_path / "two" / "adapter")))
    assert weights(tmp_path / "one").keys() == weights(tmp_path / "two").keys()
    assert not torch.equal(*(next(iter(weights(tmp_path / n).values())) for n in ("one", "two")))
    assert (tmp_path / "forgotten" / "adapter" / "adapter_config.json").is_file()
    assert not (tmp_path / "forgotten" / "model").exists()
