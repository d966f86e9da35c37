"""A finished run measured again on quantised weights: what is measured is the quantised result, and shares are what a reader computes."""

import csv
import math

import pytest
import yaml
from study_runs import fit, settings
from test_backbone import saved_base
from test_study import config_of, small, tree

from unlearn_lightning.main import main
from unlearn_lightning.models.backbone import Backbone, Lora
from unlearn_lightning.records import read_json, read_study, record_path, write_json
from unlearn_lightning.records.recovery import original_name, recoveries, share_recovered
from unlearn_lightning.report.report import build
from unlearn_lightning.runs.content import files_of

PROBES = [
    {"class_path": "ResponseLikelihood", "init_args": {"name": "forget", "limit": 4, "every_n_steps": 0}},
    {"class_path": "RetainLikelihood", "init_args": {"limit": 4, "every_n_steps": 0}},
]


@pytest.mark.parametrize(
    ("before", "unlearned", "quantised", "share"),
    [(0.9, 0.1, 0.1, 0.0), (0.9, 0.1, 0.9, 1.0), (0.9, 0.1, 0.5, 0.5), (0.9, 0.1, 0.0, -0.125), (-1.0, -5.0, -2.0, 0.75)],
)
def test_the_share_recovered_by_hand(before, unlearned, quantised, share):
    assert share_recovered(before, unlearned, quantised) == pytest.approx(share)


def test_nothing_comes_back_of_what_was_not_changed():
    assert math.isnan(share_recovered(0.5, 0.5, 0.7))
    assert (original_name("forget.nf4"), original_name("forget.int8"), original_name("v1.2"), original_name("nf4")) == (
        "forget", "forget", "v1.2", "nf4",
    )  # fmt: skip


@pytest.fixture(autouse=True)
def without_figures(monkeypatch):
    monkeypatch.setattr("unlearn_lightning.report.report.save_figures", lambda *_: [])


@pytest.mark.parametrize(("trains", "kind"), [("adapter", "nf4"), ("whole weights", "nf4"), ("adapter", "int8"), ("whole weights", "int8")])
def test_the_result_is_measured_on_quantised_weights(trains, kind, make_backbone, corpus, questions, tmp_path, capsys):
    base = saved_base(make_backbone, tmp_path / "base")
    lora = {"rank": 4, "alpha": 8} if trains == "adapter" else None
    backbone = {"model": base, "scratch": None, "lora": lora}
    run = tmp_path / "run"
    trainer = {"max_steps": 3, "logger": False, "callbacks": PROBES}
    cli = fit(settings(corpus, questions, run, "GradientAscent", model={"init_args": {"backbone": backbone}}, trainer=trainer))
    before = {path: path.read_text() for path in (run / "records").rglob("*.json")}
    line = ["validate", str(run), "--model.backbone.quantization", kind]
    capsys.readouterr()
    assert main(line) == 0, capsys.readouterr().err
    said = capsys.readouterr().out
    assert f"Measured with {kind} weights: forget.{kind}, retain.{kind}." in said
    assert "share recovered" in said
    assert {path: path.read_text() for path in before} == before, "the run's own records stay"
    # The same by hand: the result loaded on quantised weights, and the module's own likelihood of the same examples.
    place = {"model": base, "adapter": str(run / "adapter")} if lora else {"model": str(run / "model")}
    net = Backbone(**place, lora=Lora(**(lora or {})), quantization=kind, seed=3).load_for_fine_tuning().eval()
    probe = next(callback for callback in cli.trainer.callbacks if getattr(callback, "name", "") == "forget")
    classes = {type(module).__name__ for module in net.modules()}
    assert {"nf4": "Linear4bit", "int8": "Linear8bitLt"}[kind] in classes, "bitsandbytes' own layers compute, also on a CPU"
    cli.model.net = net
    rows = probe.predict(cli.model.eval(), probe.examples, probe.encoded, 0)
    record = read_json(record_path(run, f"forget.{kind}", 3))
    for row, example in zip(rows, record["examples"], strict=True):
        assert example["mean_token_log_lik"] == pytest.approx(row["mean_token_log_lik"], abs=1e-4)
    assert record["metrics"][f"forget.{kind}/log_lik"] != read_json(record_path(run, "forget", 3))["metrics"]["forget/log_lik"]

    assert main(line) == 0
    assert f"Measured already with {kind} weights." in capsys.readouterr().out
    build(run)
    (first, *_) = csv.DictReader((run / "report" / "tables" / "quantisation.csv").open())
    one = next(found for found in recoveries(run) if found.metric == first["metric"])
    assert float(first["share_recovered"]) == pytest.approx(one.share)
    assert main([*line[:-1], "int4"]) != 0
    assert "expected one of nf4, int8, got 'int4'" in capsys.readouterr().err


def test_a_score_that_unlearning_left_alone_has_no_share_and_that_is_said(corpus, questions, tmp_path):
    run = tmp_path / "run"
    fit(settings(corpus, questions, run, "GradientAscent", trainer={"max_steps": 1, "logger": False, "callbacks": PROBES[:1]}))
    start = read_json(record_path(run, "forget", 0))
    for name, step in (("forget", 1), ("forget.nf4", 1)):
        metrics = {key.replace("forget", name): value for key, value in start["metrics"].items()}
        write_json(record_path(run, name, step), {**{k: v for k, v in start.items() if k != "format"}, "metrics": metrics})
    about = read_json(run / "run.json")
    write_json(run / "run.json", {**{k: v for k, v in about.items() if k != "format"}, "files": files_of(run)})
    made = build(run)
    assert any("No share recovered of" in problem for problem in made.problems)


def test_a_study_measures_every_result_again_and_status_says_what_is_open(corpus, questions, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    study = small(corpus, questions, order=[], positions=[1], retrained=False, stage_probes=[])
    study["probes"] = {"retain": study["probes"]["retain"]}
    keys = [run.key for run in tree(study, tmp_path)]
    (tmp_path / "small.yaml").write_text(yaml.safe_dump(study))
    assert main(["study", "small.yaml", "--jobs", "1"]) == 0, capsys.readouterr().err
    asked = {**study, "quantised": ["int8", "nf4"]}
    assert [run.key for run in tree(asked, tmp_path)] == keys, "keys stay"
    (tmp_path / "small.yaml").write_text(yaml.safe_dump(asked))
    capsys.readouterr()
    assert main(["study", "small.yaml", "--jobs", "2"]) == 0, capsys.readouterr().err
    said = " ".join(capsys.readouterr().out.split())
    for kind in ("int8", "nf4"):
        assert f"retain.{kind}: measured on the results of 2 finished runs with quantised weights; nothing is trained again." in said
    assert "0 runs executed, 4 were finished already, 2 of them measured now." in said
    runs = {run["name"]: run for run in read_study(tmp_path / "runs/small")["runs"]}
    assert {name for name, run in runs.items() if run.get("quantised") == ["int8", "nf4"]} == {"seed0/p1/ga", "seed0/p1/npo"}
    for name in ("seed0/p1/ga", "seed0/p1/npo"):
        found = list(recoveries(tmp_path / "runs/small" / runs[name]["folder"]))
        assert {one.kind for one in found if one.quantised != one.unlearned} == {"int8", "nf4"}
        assert {one.metric for one in found} == {"retain/chat_log_lik", "retain/chat_change"}
    assert main(["study", "small.yaml", "--jobs", "1"]) == 0
    assert "measured on" not in capsys.readouterr().out
    # A run whose int8 records are not there.
    folder = tmp_path / "runs/small" / runs["seed0/p1/ga"]["folder"]
    about = read_json(folder / "run.json")
    del about["probes"]["retain.int8"]
    write_json(folder / "run.json", {name: value for name, value in about.items() if name != "format"})
    assert main(["status", "runs/small"]) == 0
    assert "still to be measured on int8 weights" in " ".join(capsys.readouterr().out.split())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"quantised": ["int4"]}, "`quantised` takes nf4 and int8; got int4"),
        ({"quantised": ["nf4", "nf4"]}, "each kind of weights once"),
        ({"quantised": ["nf4"], "backbone": {"quantization": "int8"}}, "the backbone is int8 already"),
        ({"quantised": ["nf4"], "base": None, "backbone": {"lora": {"rank": 2}}}, "this one has random weights"),
    ],
)
def test_what_cannot_be_quantised_is_refused_before_work(changes, message, corpus, questions):
    with pytest.raises(ValueError, match=message):
        config_of(small(corpus, questions, **changes))
