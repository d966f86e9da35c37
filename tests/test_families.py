"""Each model family of configs/backbones goes through a stage, unlearning with a reference, probes and export, with its own LoRA layers."""

from pathlib import Path

import pytest
import torch
import yaml
from peft import PeftModel
from study_runs import fit, settings
from test_shortcuts import SIZES, model
from transformers import AutoModelForCausalLM

from unlearn_lightning.main import main
from unlearn_lightning.models.adapters import reference_mode
from unlearn_lightning.records import last_record

CONFIGS = Path(__file__).parents[1] / "configs" / "backbones"
TEXT = {name: value for name, value in SIZES.items() if name != "vocab_size"} | {"num_hidden_layers": 2, "max_position_embeddings": 516}
VISION = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "image_size": 28, "patch_size": 14}
# Architecture, what it needs besides SIZES, and the layers of each decoder layer that its configuration adapts.
LLAMA = ("q_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
FAMILIES = {
    "smollm2-360m": ("llama", {"tie_word_embeddings": True}, LLAMA),
    "qwen3-0.6b": ("qwen3", {"tie_word_embeddings": True}, LLAMA),
    "olmo2-1b": ("olmo2", {}, LLAMA),
    "phi4-mini": ("phi3", {"partial_rotary_factor": 0.5, "tie_word_embeddings": True}, ("qkv_proj", "o_proj", "gate_up_proj", "down_proj")),
    "gemma3-1b": ("gemma3_text", {"sliding_window": 8, "query_pre_attn_scalar": 8}, LLAMA),
    "gemma3-4b": ("gemma3", {"sliding_window": 8, "query_pre_attn_scalar": 8}, LLAMA),
}
PROBES = [
    {"class_path": "RetainLikelihood", "init_args": {"limit": 3, "every_n_steps": 0}},
    {"class_path": "ResponseMatch", "init_args": {"limit": 3, "every_n_steps": 0, "max_new_tokens": 4}},
]


def saved(make_backbone, folder, architecture, more):
    """A random model of a family with the tests' tokenizer, as a folder of the Hub."""
    tokenizer = make_backbone().load_tokenizer()
    tokens = {"vocab_size": len(tokenizer), "pad_token_id": tokenizer.pad_token_id, "eos_token_id": tokenizer.eos_token_id}
    own = {**TEXT, **tokens, "bos_token_id": tokenizer.bos_token_id, **more}
    if architecture == "gemma3":
        own = {"text_config": own, "vision_config": VISION, "mm_tokens_per_image": 4, **tokens}
    net = model(architecture, **own)
    net.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return str(folder)


@pytest.mark.parametrize("name", FAMILIES)
def test_a_family_is_trained_unlearned_measured_and_exported(name, make_backbone, corpus, questions, tmp_path, capsys):
    architecture, more, layers = FAMILIES[name]
    shipped = yaml.safe_load((CONFIGS / f"{name}.yaml").read_text())["model"]["init_args"]["backbone"]
    base = saved(make_backbone, tmp_path / "base", architecture, more)
    backbone = {**shipped, "model": base, "scratch": None, "chat_template_from": None, "lora": {**shipped["lora"], "rank": 2, "alpha": 8}}
    trainer = {"max_steps": 2, "logger": False}
    fit(settings(corpus, questions, tmp_path / "stage", model={"init_args": {"backbone": backbone}}, trainer=trainer))
    backbone["adapter"] = str(tmp_path / "stage/adapter")
    npo = {"backbone": backbone, "beta": 0.1}
    cli = fit(settings(corpus, questions, tmp_path / "run", "NPO", model={"init_args": npo}, trainer={**trainer, "callbacks": PROBES}))
    net = cli.model.net
    adapted = [path for path, module in net.named_modules() if hasattr(module, "lora_A")]
    assert sorted(path.rpartition(".")[2] for path in adapted) == sorted(layers * 2)
    assert not any("vision" in path for path in adapted)
    ids = torch.tensor([[5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16]])
    with torch.no_grad():
        trained = net.eval()(input_ids=ids).logits
        with reference_mode(net):
            reference = net(input_ids=ids).logits
    assert not torch.allclose(trained, reference, atol=1e-4), "unlearning moved the model away from its reference"
    for probe, metric in (("retain", "retain/chat_log_lik"), ("answers", "answers/rouge_l_recall")):
        record = last_record(tmp_path / "run", probe)
        assert record["step"] == 2
        assert metric in record["metrics"]
    said = capsys.readouterr().out
    assert "not among the tested architectures" not in said
    assert main(["export", str(tmp_path / "run"), "--out", str(tmp_path / "one")]) == 0, capsys.readouterr().err
    plain = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base), tmp_path / "one").eval()
    with torch.no_grad():
        torch.testing.assert_close(plain(input_ids=ids).logits, trained, atol=1e-4, rtol=0)
