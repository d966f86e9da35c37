"""A probe that is added to a finished study is measured on its saved models, and nothing is trained again."""

import json
import shutil
import sys
from pathlib import Path

import pytest
import torch
import yaml
from test_measuring import ROUGE
from test_study import config_of, small, tree

from unlearn_lightning.cli.built_model import loaded
from unlearn_lightning.data import ChatStage, collate
from unlearn_lightning.inference.likelihood import response_logits
from unlearn_lightning.main import main
from unlearn_lightning.records import read_json, read_records, read_study, record_path, write_json
from unlearn_lightning.report.report import build
from unlearn_lightning.runs.content import files_of
from unlearn_lightning.study.measuring import begun_with, to_measure


def two_runs(corpus, questions, **changes):
    """The forget stage alone and one objective: two runs, and with `retrained` the base's as a third."""
    return small(corpus, questions, **{"order": [], "positions": [1], "base": None, "retrained": False, "stage_probes": [], **changes})


ROUGES = {name: {"class_path": "mine.Rouge", "init_args": {"limit": 2}} for name in ("rouge", "second")}


def said(capsys):
    return " ".join(capsys.readouterr().out.split())


def test_a_new_probe_retrains_nothing_and_is_measured_on_the_finished_runs(corpus, questions, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "mine", raising=False)
    Path("mine.py").write_text(ROUGE.replace("FACTOR", "1"))
    study = two_runs(corpus, questions)
    study["objectives"] = {"ga": study["objectives"]["ga"]}
    Path("small.yaml").write_text(yaml.safe_dump({**study, "probes": {"retain": study["probes"]["retain"]}}))
    assert main(["study", "small.yaml", "--jobs", "1"]) == 0
    capsys.readouterr()
    before = {run["key"]: run["folder"] for run in read_study(Path("runs/small"))["runs"]}
    weights = {path: path.stat().st_mtime_ns for path in Path("runs/store").glob("*/model/*.safetensors")}

    Path("small.yaml").write_text(yaml.safe_dump({**study, "probes": {"retain": study["probes"]["retain"], **ROUGES}}))
    assert main(["study", "small.yaml", "--jobs", "1", "--measure", "second"]) == 0
    text = said(capsys)
    assert "second: measured on the saved models of 1 finished run, start and end" in text
    assert "rouge: measured" not in text
    assert "0 runs executed, 2 were finished already, 1 of them measured now." in text
    assert main(["study", "runs/small", "--jobs", "1"]) == 0
    text = said(capsys)
    assert "second: measured" not in text, "it is there, and the study's folder names the study"
    assert "rouge: measured on the saved models of 1 finished run, start and end; no steps between, and nothing is trained again." in text
    assert "0 runs executed, 2 were finished already, 1 of them measured now." in text
    runs = read_study(Path("runs/small"))["runs"]
    assert {run["key"]: run["folder"] for run in runs} == before
    assert {path: path.stat().st_mtime_ns for path in Path("runs/store").glob("*/model/*.safetensors")} == weights
    (unlearned,) = [Path("runs/small") / run["folder"] for run in runs if run["kind"] == "unlearn"]
    last = max(read_records(unlearned, "retain"))
    for name in ROUGES:
        assert {step: record["metrics"] for step, record in read_records(unlearned, name).items()} == {
            step: {f"{name}/score": step + 1.0} for step in (0, last)
        }
    # Another limit is refused before anything starts, unless it is asked for.
    probe = json.dumps({"class_path": "mine.Rouge", "init_args": {"limit": 1}})
    assert main(["study", "runs/small", "--probes.rouge", probe]) != 0
    assert "rouge on 1 run" in capsys.readouterr().err
    assert main(["study", "runs/small", "--probes.rouge", probe, "--measure", "rouge"]) == 0
    assert len(read_json(record_path(unlearned, "rouge", last))["examples"]) == 1
    assert len(read_json(record_path(unlearned, "second", last))["examples"]) == 2
    assert yaml.safe_load(Path("runs/small/study.yaml").read_text())["measure"] is None


def test_adding_a_probe_changes_no_key(corpus, questions, tmp_path):
    runs = tree(two_runs(corpus, questions), tmp_path)
    more = two_runs(corpus, questions, probes={"answers": {"class_path": "GSM8KAccuracy", "stage": "inst"}}, stage_probes=["answers"])
    others = tree(more, tmp_path)
    assert [run.key for run in others] == [run.key for run in runs]
    assert [run.inputs for run in others] == [run.inputs for run in runs]
    (named,) = {p["init_args"]["name"] for run in others for p in run.config["trainer"]["callbacks"] if "GSM8K" in p["class_path"]}
    assert named == "answers", "a probe is called by its key in the study"
    assert to_measure(runs, None) == {}


@pytest.mark.parametrize(
    "probes",
    [
        {"a": {"class_path": "RetainLikelihood", "init_args": {"name": "same"}}, "same": {"class_path": "ForgetLikelihood"}},
        {name: {"class_path": "RetainLikelihood", "init_args": {"name": "same"}} for name in ("a", "b")},
    ],
)
def test_two_probes_of_one_name_are_refused_by_name(probes, corpus, questions, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    Path("small.yaml").write_text(yaml.safe_dump({**two_runs(corpus, questions), "probes": probes}))
    assert main(["study", "small.yaml", "--plan"]) == 2
    assert "are both named 'same', and would overwrite each other's records" in capsys.readouterr().err


def test_a_stopped_run_goes_on_with_the_probes_that_it_began_with(corpus, questions, tmp_path):
    (run, *_) = (run for run in tree(two_runs(corpus, questions), tmp_path) if run.kind == "unlearn")
    assert begun_with(run.config, run.folder) is run.config, "it has not begun"
    for name in ("run.json", "checkpoints/last.ckpt"):
        (run.folder / name).parent.mkdir(parents=True, exist_ok=True)
        known = {"format": 1, "status": "stopped", "probes": {"retain": {"key": "1", "steps": []}}}
        (run.folder / name).write_text(json.dumps(known))
    kept = begun_with(run.config, run.folder)["trainer"]["callbacks"]
    assert [probe["class_path"].rpartition(".")[2] for probe in kept] == ["RetainLikelihood"]


def test_a_probe_of_no_study_is_not_measured(corpus, questions, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    Path("small.yaml").write_text(yaml.safe_dump(two_runs(corpus, questions)))
    assert main(["study", "small.yaml", "--measure", "rogue"]) == 2
    assert "--measure names rogue, but `probes` has divergence, forget, retain." in capsys.readouterr().err
    assert config_of(two_runs(corpus, questions)).probes


def test_a_study_gives_its_retrained_model_to_the_probe_that_asks_it(corpus, questions, tmp_path, monkeypatch, capsys):
    """KL and Jensen-Shannon of each run, by hand from both models' logits; also where the retrained model comes later."""
    monkeypatch.chdir(tmp_path)
    probe = {"class_path": "RetrainedDistribution", "init_args": {"limit": 3}}
    study = two_runs(corpus, questions, order=["inst"], positions=[2], retrained=True)
    study = {**study, "objectives": {"ga": study["objectives"]["ga"]}, "probes": {"retain": study["probes"]["retain"]}}
    with_probe = {**study, "probes": {**study["probes"], "distribution": probe}}
    assert [run.key for run in tree(with_probe, tmp_path)] == [run.key for run in tree(study, tmp_path)]
    Path("small.yaml").write_text(yaml.safe_dump(with_probe))
    assert main(["study", "small.yaml", "--jobs", "1", "--plan"]) == 0
    planned = yaml.safe_load(Path("runs/small/plan/seed0-p2-ga.yaml").read_text())
    (named,) = [c["init_args"]["retrained"] for c in planned["trainer"]["callbacks"] if "RetrainedDistribution" in c["class_path"]]
    assert main(["study", "small.yaml", "--jobs", "1"]) == 0, capsys.readouterr().err
    folders = {run["name"]: Path("runs/small") / run["folder"] for run in read_study(Path("runs/small"))["runs"]}
    run, retrained = folders["seed0/p2/ga"], folders["seed0/inst"]
    assert Path(named).resolve() == retrained.resolve()
    records = read_records(run, "distribution")
    assert sorted(records) == [0, 2]
    (one, tokenizer, _), (other, _, _) = loaded(run, True), loaded(retrained, True)
    stage = ChatStage(**study["stages"]["safety"]["data"]["init_args"])
    encoded = stage.measured("held_out", tokenizer, 3)[1]
    batch = collate(encoded, tokenizer.pad_token_id)
    with torch.no_grad():
        p, q = (response_logits(net, batch.input_ids, batch.attention_mask, batch.response_mask).log_softmax(-1) for net in (other, one))
    kl = (p.exp() * (p - q)).sum(-1).mean()
    m = ((p.exp() + q.exp()) / 2).log()
    js = ((p.exp() * (p - m)).sum(-1) + (q.exp() * (q - m)).sum(-1)).mean() / 2
    assert records[2]["metrics"] == {
        "distribution/kl": pytest.approx(kl.item(), abs=1e-4),
        "distribution/js": pytest.approx(js.item(), abs=1e-4),
    }
    assert records[2]["metrics"]["distribution/kl"] > 1e-3
    made = build(Path("runs/small"))
    (table,) = [table for section in made.sections for table in section.tables if table.name == "probe_distribution"]
    assert [row.cells[2] for row in table.rows][:1] == ["KL divergence from the retrained model"]

    # The same runs, of which the unlearned one was finished before there was a retrained model.
    capsys.readouterr()
    shutil.rmtree(run / "records" / "distribution")
    about = read_json(run / "run.json")
    about["probes"]["distribution"]["steps"] = []
    write_json(run / "run.json", {**{k: v for k, v in about.items() if k != "format"}, "files": files_of(run)})
    config = yaml.safe_load((run / "config.yaml").read_text())
    for callback in config["trainer"]["callbacks"]:
        callback["init_args"] |= {"retrained": None} if "RetrainedDistribution" in callback["class_path"] else {}
    (run / "config.yaml").write_text(yaml.safe_dump(config))
    about = read_json(run / "run.json")
    write_json(run / "run.json", {**{k: v for k, v in about.items() if k != "format"}, "files": files_of(run)})
    assert main(["study", "small.yaml", "--jobs", "1"]) == 0, capsys.readouterr().err
    assert "distribution: measured on the saved models of 1 finished run" in said(capsys)
    assert read_records(run, "distribution")[2]["metrics"]["distribution/kl"] == pytest.approx(kl.item(), abs=1e-4)
    assert main(["study", "small.yaml", "--jobs", "1"]) == 0
    assert "distribution: measured" not in said(capsys)
