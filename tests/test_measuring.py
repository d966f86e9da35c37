"""A finished run is measured on its saved models: what comes out is what the run itself would have recorded."""

import json

import pytest
import torch
import yaml
from study_runs import fit, run_json, settings, weights

from callbacks.probe import Probe, metric_key
from unlearn_lightning.cli.measuring import measure
from unlearn_lightning.records import read_json, record_path

LORA = {"rank": 4, "alpha": 8}
NAMES = ("forget", "retain", "divergence", "gsm8k")


def probes(questions):
    data = {"class_path": "ChatStage", "init_args": {"source": questions, "held_out_source": questions}}
    more = {
        "ForgetLikelihood": {"label": "Sorry", "paraphrases": ["I must", "No, thank you"]},
        "GSM8KAccuracy": {"max_new_tokens": 4, "attempts": 2, "temperature": 1.0},
    }
    shared = {"data": data, "limit": 3, "every_n_steps": 0, "chunk_size": 2}
    return [
        {"class_path": name, "init_args": {**shared, **more.get(name, {})}}
        for name in ("ForgetLikelihood", "RetainLikelihood", "PathDivergence", "GSM8KAccuracy")
    ]


def base_of(make_backbone, folder):
    backbone = make_backbone()
    backbone.load_base().save_pretrained(folder)
    backbone.load_tokenizer().save_pretrained(folder)
    return str(folder)


# How each kind of run says what it starts from, and what it trains: (class, backbone settings, whether an earlier adapter lies below).
KINDS = {
    "full stage": ("StageFineTuning", {"lora": None}, False),
    "full unlearning": ("NPO", {"lora": None}, False),
    "fresh adapter": ("GradientAscent", {"lora": LORA}, False),
    "continued adapter": ("StageFineTuning", {"lora": LORA}, True),
    "adapter over a merged one": ("NPO", {"lora": LORA}, True),
    "adapter stacked over 4 bits": ("NPO", {"lora": LORA, "quantization": "nf4"}, True),
}


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_measured_afterwards_is_what_the_run_itself_records(kind, corpus, questions, make_backbone, tmp_path):
    cls, backbone, earlier = KINDS[kind]
    backbone = {"scratch": None, "model": base_of(make_backbone, tmp_path / "base"), **backbone}

    def run(name, cls, backbone, **trainer):
        return settings(
            corpus, questions, tmp_path / name, cls, model={"init_args": {"backbone": backbone}}, trainer={"max_steps": 2, **trainer}
        )

    if earlier:
        fit(run("earlier", "StageFineTuning", backbone))
        backbone = {**backbone, "adapter": str(tmp_path / "earlier" / "adapter")}
    measured = fit(run("measured", cls, backbone, callbacks=probes(questions)))
    plain = fit(run("plain", cls, backbone))
    assert plain.key == measured.key, "measuring changes no weights, so probes are no part of a key"
    for name, tensor in weights(tmp_path / "plain").items():
        assert torch.equal(tensor, weights(tmp_path / "measured")[name])
    assert measure(tmp_path / "plain", measured.resolved()) == list(NAMES)
    for probe in NAMES:
        for step in (0, 2):
            there, here = (read_json(record_path(tmp_path / run, probe, step)) for run in ("measured", "plain"))
            assert here == there, f"{probe} at step {step}"
    assert run_json(tmp_path / "plain")["probes"] == run_json(tmp_path / "measured")["probes"]
