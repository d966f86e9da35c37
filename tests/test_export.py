"""Exported models: one adapter with the stacked model's logits, merged weights, and a card; loaded without this package."""

import dataclasses
import json

import pytest
import torch
import yaml
from peft import PeftModel
from study_runs import fit, settings
from test_backbone import log_lik, saved_base
from transformers import AutoModelForCausalLM

from unlearn_lightning.main import main
from unlearn_lightning.models.backbone import Backbone, Lora, save_result
from unlearn_lightning.runs.content import result_of


@pytest.fixture
def forgotten(make_backbone, corpus, questions, tmp_path):
    """The base model, and a run that unlearned on top of a stage's adapter; the two adapters differ in rank and scale."""
    base = saved_base(make_backbone, tmp_path / "base")
    stage = settings(corpus, questions, tmp_path / "stage")
    stage["model"]["init_args"]["backbone"] = {"model": base, "scratch": None, "lora": {"rank": 4, "alpha": 16}}
    fit(stage)
    run = settings(corpus, questions, tmp_path / "forgotten", "NPO", trainer={"callbacks": [{"class_path": "RetainLikelihood"}]})
    run["model"]["init_args"]["backbone"] = {
        "model": base, "scratch": None, "lora": {"rank": 2, "alpha": 6}, "adapter": str(tmp_path / "stage/adapter"),
    }  # fmt: skip
    fit(run)
    return base, tmp_path / "forgotten"


def test_an_exported_adapter_has_the_stacked_models_logits_in_plain_peft(forgotten, tmp_path, capsys):
    base, run = forgotten
    assert main(["export", str(run), "--out", str(tmp_path / "one")]) == 0
    said = capsys.readouterr().out
    assert "one adapter of rank 6 from 2; its token log-likelihoods differ from the trained model's by" in said
    assert "of 4 of the run's examples" in said
    folders = [str(tmp_path / "stage/adapter"), str(run / "adapter")]
    stacked = Backbone(model=base, lora=Lora(), adapter=folders).load_for_unlearning()
    plain = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base), tmp_path / "one")
    torch.testing.assert_close(log_lik(plain), log_lik(stacked), atol=1e-5, rtol=0)
    untouched = AutoModelForCausalLM.from_pretrained(base)
    assert not torch.allclose(log_lik(untouched), log_lik(stacked), atol=1e-3)

    assert main(["export", str(run), "--out", str(tmp_path / "merged"), "--merge"]) == 0
    assert "merged weights in float32" in capsys.readouterr().out
    torch.testing.assert_close(log_lik(AutoModelForCausalLM.from_pretrained(tmp_path / "merged")), log_lik(stacked), atol=1e-5, rtol=0)

    card = (tmp_path / "one/README.md").read_text()
    assert "- path: ChatStage" in card
    assert "- objective: NPO on ChatStage, 5 steps" in card
    assert "| retain/chat_log_lik | -" in card

    assert main(["export", str(run), "--out", str(tmp_path / "one")]) == 2
    assert "is not empty" in capsys.readouterr().err


def test_what_cannot_be_exported_is_said(corpus, questions, tmp_path, capsys):
    fit(settings(corpus, questions, tmp_path / "whole"))
    assert main(["export", str(tmp_path / "whole")]) == 2
    assert "holds whole weights, not an adapter" in capsys.readouterr().err
    assert main(["export", str(tmp_path / "none")]) == 2
    assert "no finished run" in capsys.readouterr().err


def adapted(base, folder, corpus, questions, dtype="float32", quantization=None, targets="all-linear"):
    """A finished run's folder with an adapter that says something, made without training."""
    backbone = Backbone(model=base, lora=Lora(4, 16, target_modules=targets), dtype=dtype, quantization=quantization)
    net = backbone.load_for_fine_tuning()
    torch.manual_seed(0)
    for p in net.parameters():
        if p.requires_grad:
            p.data += 0.1 * torch.randn_like(p)
    save_result(net, backbone.load_tokenizer(), folder)
    config = settings(corpus, questions, folder)
    config["model"]["init_args"]["backbone"] = dataclasses.asdict(backbone)
    config["data"]["class_path"] = "unlearn_lightning.data.ChatStage"
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    about = {
        "format": 1,
        "status": "finished",
        "kind": "train",
        "model": "StageFineTuning",
        "data": "ChatStage",
        "steps": 5,
        "key": "0",
        "seed": 3,
    }
    (folder / "run.json").write_text(json.dumps({**about, "result": result_of(folder), "versions": {"unlearn_lightning": "0"}}))
    return backbone, net


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("targets", [["lm_head"], ["embed_tokens"], ["lm_head", "embed_tokens", "q_proj"]], ids="-".join)
def test_a_merge_into_tied_weights_gives_the_head_its_own(make_backbone, corpus, questions, tmp_path, targets, dtype, capsys):
    """It used to change the embeddings with the head: "largest difference 1.6", and exit status 0."""
    base = saved_base(make_backbone, tmp_path)
    _, net = adapted(base, tmp_path / "run", corpus, questions, dtype, targets=targets)
    assert main(["export", str(tmp_path / "run"), "--merge", "--out", str(tmp_path / "merged")]) == 0
    assert "with a head of its own" in capsys.readouterr().out
    merged = AutoModelForCausalLM.from_pretrained(tmp_path / "merged")
    assert not merged.config.tie_word_embeddings
    torch.testing.assert_close(log_lik(merged), log_lik(net), atol=1e-4 if dtype == "float32" else 0.1, rtol=0)
    assert main(["export", str(tmp_path / "run"), "--out", str(tmp_path / "one")]) == 0
    plain = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base, dtype=dtype), tmp_path / "one")
    torch.testing.assert_close(log_lik(plain), log_lik(net), atol=1e-4 if dtype == "float32" else 0.1, rtol=0)


def test_a_merge_that_is_another_model_is_refused_unless_it_is_asked_for(make_backbone, corpus, questions, tmp_path, capsys, monkeypatch):
    base = saved_base(make_backbone, tmp_path)
    adapted(base, tmp_path / "run", corpus, questions, targets=["lm_head"])
    monkeypatch.setattr("unlearn_lightning.runs.export.tied_targets", lambda net: [])
    line = ["export", str(tmp_path / "run"), "--merge", "--out", str(tmp_path / "merged")]
    assert main(line) == 2
    said = capsys.readouterr().err
    assert "where 0.001 nats on average are allowed for a run in float32. Nothing was written. Use --dtype float32" in said
    assert not (tmp_path / "merged").exists()
    assert main([*line, "--accept-difference"]) == 0
    assert "nats on average" in capsys.readouterr().out


def test_merging_in_float32_rounds_nothing_of_a_bfloat16_run(make_backbone, corpus, questions, tmp_path, capsys):
    base = saved_base(make_backbone, tmp_path)
    adapted(base, tmp_path / "run", corpus, questions, "bfloat16")
    line = ["export", str(tmp_path / "run"), "--dtype", "float32", "--out", str(tmp_path / "merged")]
    assert main(line) == 2
    assert "give --merge as well" in capsys.readouterr().err
    assert main([*line, "--merge"]) == 0
    assert "merged weights in float32; " in capsys.readouterr().out
    exact = PeftModel.from_pretrained(
        AutoModelForCausalLM.from_pretrained(base, dtype="bfloat16").float(), tmp_path / "run/adapter"
    ).merge_and_unload()
    merged = AutoModelForCausalLM.from_pretrained(tmp_path / "merged")
    assert merged.dtype == torch.float32
    torch.testing.assert_close(log_lik(merged), log_lik(exact), atol=1e-5, rtol=0)


def test_an_export_is_measured_on_a_text_where_the_runs_data_are_gone(make_backbone, corpus, questions, tmp_path, capsys):
    base = saved_base(make_backbone, tmp_path)
    adapted(base, tmp_path / "run", corpus, str(tmp_path / "gone.jsonl"))
    assert main(["export", str(tmp_path / "run"), "--out", str(tmp_path / "one")]) == 0
    assert "of a fixed text, as the run's data cannot be read (" in capsys.readouterr().out
