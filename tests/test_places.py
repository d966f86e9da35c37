"""A run is used from another folder than the one in which it was started: what it names relative to that one is found."""

import json

import pytest
import yaml
from study_runs import fit, settings

from unlearn_lightning.cli.arguments import prepared
from unlearn_lightning.main import main
from unlearn_lightning.records import read_records, read_run
from unlearn_lightning.runs.moved import STARTED_IN, read_config


@pytest.fixture
def run(questions, corpus, tmp_path, monkeypatch):
    """A run whose data file is named relative to the folder in which it was started."""
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path)
    fit(settings(corpus, "questions.jsonl", "runs/mine", trainer={"max_steps": 1}))
    monkeypatch.chdir(tmp_path / "elsewhere")
    return tmp_path / "runs/mine"


def test_a_run_is_measured_from_another_folder(run, questions, tmp_path):
    assert read_run(run)[STARTED_IN] == str(tmp_path)
    words = ["--trainer.callbacks+", "ResponseLikelihood", "--trainer.callbacks.limit", "2", "--trainer.callbacks.name", "late"]
    assert main(["validate", str(run), *words]) == 0
    assert list(read_records(run, "late")) == [0, 1]
    config = read_config(run)
    assert config["data"]["init_args"]["source"] == questions
    assert config["data"]["class_path"] == "unlearn_lightning.data.ChatStage", "a class path is no path"
    assert json.loads(prepared(["-c", str(run / "config.yaml")])[1])["data"]["init_args"]["source"] == questions


def test_a_file_of_that_name_here_is_the_one_that_is_meant(run, tmp_path):
    (tmp_path / "elsewhere/questions.jsonl").write_text("{}")
    assert read_config(run)["data"]["init_args"]["source"] == "questions.jsonl"


def test_a_data_file_that_is_nowhere_is_named_with_where_it_was_sought(run, questions, tmp_path, capsys):
    (tmp_path / "questions.jsonl").unlink()
    words = ["--trainer.callbacks+", "ResponseLikelihood"]
    assert main(["validate", str(run), *words]) == 1
    told = capsys.readouterr().err
    assert f"There is no data file questions.jsonl in {tmp_path / 'elsewhere'}. " in told
    assert "the model that the run began with is gone" not in told


def test_runs_of_before_do_without(run):
    about = read_run(run)
    del about[STARTED_IN]
    (run / "run.json").write_text(json.dumps(about))
    assert read_config(run) == {**yaml.safe_load((run / "config.yaml").read_text()), "run_folder": str(run)}
