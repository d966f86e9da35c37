"""Metrics against a retrained model, by `--against`: it is measured first, and the numbers are those of its own records and weights."""

import json

import pytest
import torch
from study_runs import fit, settings

from callbacks import RetrainedDistribution, TruthRatio
from callbacks.compared import Compared
from unlearn_lightning.cli import lightning_cli
from unlearn_lightning.cli.against import with_retrained
from unlearn_lightning.cli.measuring import trained_config
from unlearn_lightning.data import ChatStage
from unlearn_lightning.inference.truth_ratio import forget_quality
from unlearn_lightning.records import last_record, write_json
from unlearn_lightning.runs import run_key
from unlearn_lightning.runs.measured import probe_keys


def test_against_a_retrained_model(corpus, questions, tmp_path):
    source = tmp_path / "answers.jsonl"
    rows = [{"prompt": f"Who wrote book {i}?", "response": "Ann.", "perturbed_answer": [f"Bob {i}.", "Zoe."]} for i in range(3)]
    source.write_text("\n".join(map(json.dumps, rows)))
    data = {"class_path": "ChatStage", "init_args": {"source": str(source), "held_out_examples": 0}}
    probes = [
        {"class_path": "TruthRatio", "init_args": {"data": data, "split": "train", "correct_field": None}},
        {"class_path": "RetrainedDistribution", "init_args": {"data": data, "split": "train", "chunk_size": 2}},
        {"class_path": "MembershipInference", "init_args": {"split": "train", "limit": 3, "holdout": data, "gradnorm": False}},
    ]
    for name, seed in (("retrained", 3), ("unlearned", 4)):
        trainer = {"max_steps": 1, "logger": False, **({"callbacks": probes} if name == "unlearned" else {})}
        fit(settings(corpus, questions, tmp_path / name, seed_everything=seed, trainer=trainer))
    assert last_record(tmp_path / "unlearned", "distribution") is None, "nothing to compare with was named"
    config, names = with_retrained(trained_config(tmp_path / "unlearned"), str(tmp_path / "retrained"))
    assert names == ["truth", "distribution", "membership"]
    config["model"]["init_args"]["backbone"] |= {"model": str(tmp_path / "unlearned" / "model")}
    again = {**{name: value for name, value in config.items() if name != "config"}, "run_folder": str(tmp_path / "against")}
    command = lightning_cli.run({"subcommand": "validate", "validate": again})

    truth = [[row["log_truth_ratio"] for row in last_record(tmp_path / run, "truth")["examples"]] for run in ("against", "retrained")]
    found = last_record(tmp_path / "against", "truth")["metrics"]
    assert found["truth/forget_quality"] == forget_quality(*truth).p
    assert found["truth/forget_quality_n"] == 3
    assert "truth/forget_quality" not in last_record(tmp_path / "retrained", "truth")["metrics"]

    membership = [last_record(tmp_path / run, "membership")["metrics"] for run in ("against", "retrained")]
    assert membership[0]["membership/loss_auc_retrained"] == membership[1]["membership/loss_auc"]
    assert "membership/reference_auc" in membership[0]

    (probe,) = [callback for callback in command.trainer.callbacks if isinstance(callback, RetrainedDistribution)]
    other, divergences = command.model.backbone.__class__(model=str(tmp_path / "retrained" / "model"), lora=None).load_base().eval(), []
    with torch.no_grad():
        for one in probe.encoded:
            ids = torch.tensor([[*one.prompt_ids, *one.response_ids]])
            r, u = (net(input_ids=ids).logits[0, len(one.prompt_ids) - 1 : -1].log_softmax(-1) for net in (other, command.model.net.eval()))
            divergences += (r.exp() * (r - u)).sum(-1).tolist()
    kl = last_record(tmp_path / "against", "distribution")["metrics"]["distribution/kl"]
    assert kl == pytest.approx(sum(divergences) / len(divergences), rel=1e-3)
    assert kl > 0

    # What is measured is told apart by the texts of wrong answers and of the holdout set, too.
    before = probe_keys(trained_config(tmp_path / "unlearned"))
    source.write_text(source.read_text().replace("Bob 1", "Tom 1"))
    run_key._field_content.cache_clear()
    after = probe_keys(trained_config(tmp_path / "unlearned"))
    assert {name for name in before if before[name] != after[name]} == {"truth"}


@pytest.mark.parametrize(
    ("ids", "error", "message"),
    [
        (None, FileNotFoundError, "has no records of probe 'truth'.*--against"),
        (["b"], ValueError, "measured on 1 examples, which are not the 1"),
    ],
)
def test_a_retrained_model_that_was_not_measured_alike_is_refused(questions, tmp_path, ids, error, message):
    probe = TruthRatio(ChatStage(source=questions), retrained=str(tmp_path))
    probe.examples = ChatStage(source=questions, held_out_examples=0).examples("train")[:1]
    if ids:
        write_json(tmp_path / "records" / "truth" / "000005.json", {"examples": [{"id": name} for name in ids]})
    with pytest.raises(error, match=message):
        Compared.check(probe, None)
