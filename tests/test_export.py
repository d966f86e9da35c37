"""Exported models: one adapter with the stacked model's logits, merged weights, and a card; loaded without this package."""

import pytest
import torch
from peft import PeftModel
from study_runs import fit, settings
from test_backbone import log_lik, saved_base
from transformers import AutoModelForCausalLM

from unlearn_lightning.backbone import Backbone, Lora
from unlearn_lightning.main import main


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
    assert "one adapter of rank 6 from 2" in capsys.readouterr().out
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
