"""Backbones: adapters in PEFT's format, frozen and fresh where they should be, and clear errors."""

import json
import shutil

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file, save_file
from study_runs import fit, settings, weights
from transformers import AutoModelForCausalLM, AutoTokenizer

from unlearn_lightning.data import Encoded, collate
from unlearn_lightning.inference.likelihood import token_log_likelihood
from unlearn_lightning.models import merging
from unlearn_lightning.models.adapters import reference_mode
from unlearn_lightning.models.backbone import Backbone, Lora, save_result

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
    from unlearn_lightning.models.scratch import Scratch

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


def test_a_path_of_adapters(corpus, questions, tmp_path, make_backbone):
    base = saved_base(make_backbone, tmp_path / "base")

    def config(name, cls="StageFineTuning", adapter=None):
        backbone = {"model": base, "scratch": None, "lora": {"rank": 4, "alpha": 8}, "adapter": adapter}
        return settings(corpus, questions, tmp_path / name, cls, model={"init_args": {"backbone": backbone}})

    fit(config("one"))
    fit(config("two", adapter=str(tmp_path / "one" / "adapter")))
    fit(config("forgotten", "NPO", adapter=str(tmp_path / "two" / "adapter")))
    assert weights(tmp_path / "one").keys() == weights(tmp_path / "two").keys()
    assert not torch.equal(*(next(iter(weights(tmp_path / n).values())) for n in ("one", "two")))
    assert (tmp_path / "forgotten" / "adapter" / "adapter_config.json").is_file()
    assert not (tmp_path / "forgotten" / "model").exists()


def edited(folder, change):
    """The folder's only weights file with its tensors changed."""
    (file,) = folder.glob("*.safetensors")
    tensors = load_file(file)
    change(tensors, next(name for name in sorted(tensors) if "q_proj" in name))
    save_file(tensors, file, metadata={"format": "pt"})


DAMAGES = {
    "missing": (lambda tensors, name: tensors.pop(name), r"1 missing \(.*q_proj"),
    "unexpected": (lambda tensors, name: tensors.update({f"{name}.more": torch.ones(2)}), r"1 unexpected \(.*q_proj.*more"),
    "misshaped": (lambda tensors, name: tensors.update({name: tensors[name][:, 1:].clone()}), r"q_proj|size mismatch"),
    "all missing": (lambda tensors, name: [tensors.pop(n) for n in sorted(tensors) if n != name], r"\d\d? missing \(.*, \.\.\.\)"),
}


@pytest.mark.parametrize("of", ["base", "shards", "adapter"])
@pytest.mark.parametrize("damage", DAMAGES)
def test_no_tensor_is_made_up_left_over_or_of_another_shape(make_backbone, lora, tmp_path, damage, of):
    """A base that lacked a q_proj was trained with a random one, in silence."""
    base = saved_base(make_backbone, tmp_path)
    change, said = DAMAGES[damage]
    if of == "adapter":
        _, adapter = trained_adapter(base, tmp_path, lora)
        edited(tmp_path / "adapter", change)
        with pytest.raises(ValueError, match=f"adapter does not fit this backbone .*{said}"):
            Backbone(model=base, lora=lora, adapter=adapter).load_for_unlearning()
        return
    edited(tmp_path / "model", change)
    if of == "shards":
        sharded(tmp_path / "model")
    with pytest.raises(ValueError, match=f"do not fit its config.json: .*{said}") as error:
        Backbone(model=base).load_base()
    assert len(str(error.value)) < 700


def sharded(folder):
    """The one weights file as two and an index."""
    tensors, index = load_file(folder / "model.safetensors"), {}
    for shard in range(2):
        index |= dict.fromkeys(sorted(tensors)[shard::2], f"part-{shard}.safetensors")
        save_file({name: tensors[name] for name in sorted(tensors)[shard::2]}, folder / f"part-{shard}.safetensors", {"format": "pt"})
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": index}))
    (folder / "model.safetensors").unlink()


@pytest.mark.parametrize("through", ["index", "config", "adapter"])
def test_no_pickle_is_reached_through_another_file(make_backbone, tmp_path, through, monkeypatch):
    base = saved_base(make_backbone, tmp_path)
    folder = tmp_path / "model"
    sharded(folder)
    index, config = folder / "model.safetensors.index.json", folder / "config.json"
    if through == "index":
        index.write_text(index.read_text().replace("part-1.safetensors", "part-1.bin"))
        torch.save({}, folder / "part-1.bin")
    elif through == "config":
        config.write_text(json.dumps(json.loads(config.read_text()) | {"transformers_weights": "part-1.bin"}))
        torch.save({}, folder / "part-1.bin")
    else:
        (folder / "adapter_config.json").write_text("{}")
    monkeypatch.setattr(torch, "load", lambda *_, **__: pytest.fail("torch.load was reached"))
    with pytest.raises(ValueError, match=r"part-1\.bin, which is not a \.safetensors file|holds an adapter"):
        Backbone(model=base).load_base()


def test_shards_and_tied_weights_that_are_all_there_load(make_backbone, tmp_path):
    base = saved_base(make_backbone, tmp_path)
    assert "lm_head.weight" not in load_file(tmp_path / "model/model.safetensors")
    expected = log_lik(Backbone(model=base).load_base())
    sharded(tmp_path / "model")
    assert torch.equal(log_lik(Backbone(model=base).load_base()), expected)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("targets", [["lm_head"], ["embed_tokens"], ["lm_head", "embed_tokens", "q_proj"]], ids="-".join)
def test_adapters_of_tied_weights_are_stacked_so_that_unlearning_starts_where_the_stage_ended(
    make_backbone, lora, tmp_path, targets, dtype, caplog
):
    """Merging would change embeddings and head, which are one weight here and in many small models."""
    base = saved_base(make_backbone, tmp_path)
    backbone = Backbone(model=base, lora=Lora(rank=4, target_modules=targets), dtype=dtype)
    stage = backbone.load_for_fine_tuning()
    torch.manual_seed(0)
    for p in stage.parameters():
        p.data += 0.05 * torch.randn_like(p) * p.requires_grad
    save_result(stage, backbone.load_tokenizer(), tmp_path)
    expected = log_lik(stage)
    with caplog.at_level("INFO"):
        net = Backbone(model=base, lora=lora, dtype=dtype, adapter=str(tmp_path / "adapter")).load_for_unlearning()
    assert f"stay stacked and are not merged: {tmp_path / 'adapter'} adapts" in caplog.text
    assert "whose weights another layer shares" in caplog.text
    torch.testing.assert_close(log_lik(net), expected)
    torch.manual_seed(1)
    for p in net.parameters():
        p.data += 0.05 * torch.randn_like(p) * p.requires_grad
    assert not torch.allclose(log_lik(net), expected, atol=1e-3)
    with reference_mode(net):
        torch.testing.assert_close(log_lik(net), expected)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_ordinary_adapters_are_merged_to_the_bit_as_peft_merges_them(make_backbone, lora, tmp_path, dtype, caplog):
    base = saved_base(make_backbone, tmp_path)
    _, adapter = trained_adapter(base, tmp_path, lora)
    with caplog.at_level("INFO"):
        net = Backbone(model=base, lora=lora, dtype=dtype, adapter=adapter).load_for_unlearning()
    assert "stacked" not in caplog.text
    plain = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base, dtype=dtype), adapter).merge_and_unload()
    assert torch.equal(log_lik(net), log_lik(plain))


def test_a_merge_that_rounds_the_model_away_is_stacked_instead(make_backbone, lora, tmp_path, caplog, monkeypatch):
    base = saved_base(make_backbone, tmp_path)
    stage, adapter = trained_adapter(base, tmp_path, lora)
    monkeypatch.setitem(merging.LIMITS, torch.float32, 1e-12)
    with caplog.at_level("INFO"):
        net = Backbone(model=base, lora=lora, adapter=adapter).load_for_unlearning()
    assert "moves logits by" in caplog.text
    assert torch.equal(log_lik(net), log_lik(stage))


def test_an_adapter_of_embeddings_keeps_its_gradients_when_adapters_are_switched():
    """PEFT names its weights `lora_embedding_A.default`, where those of linear layers are `lora_A.default.weight`."""
    from peft import LoraConfig, get_peft_model
    from transformers import LlamaConfig, LlamaForCausalLM

    from unlearn_lightning.models.adapters import activate

    base = LlamaForCausalLM(LlamaConfig(vocab_size=16, hidden_size=8, num_hidden_layers=1, num_attention_heads=2, intermediate_size=8))
    net = get_peft_model(base, LoraConfig(r=2, target_modules=["embed_tokens", "q_proj"]))
    trained = {name for name, parameter in net.named_parameters() if parameter.requires_grad}
    net.add_adapter("frozen0", LoraConfig(r=2, target_modules=["embed_tokens", "q_proj"]))
    activate(net, ["frozen0", "default"])
    assert {name for name, parameter in net.named_parameters() if parameter.requires_grad} == trained
    assert any("lora_embedding_A" in name for name in trained)


def test_an_adapter_in_the_place_of_the_model_is_named_before_its_tokenizer_is_sought(tmp_path):
    (tmp_path / "adapter_config.json").write_text("{}")
    with pytest.raises(ValueError, match=r"holds an adapter .* set backbone\.adapter to it, and backbone\.model to its base"):
        Backbone(model=str(tmp_path)).load_tokenizer()
