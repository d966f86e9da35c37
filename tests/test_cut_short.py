"""Runs that a flag ends before their plan are never finished; and what run.json says of how a run was computed."""

from datetime import timedelta
from types import SimpleNamespace

import pytest
from lightning.pytorch.callbacks import EarlyStopping, Timer
from study_runs import fit, run_json, settings
from test_study import small, tree

from unlearn_lightning.records import is_finished, read_records
from unlearn_lightning.report.sections.provenance import WARNING, mixtures
from unlearn_lightning.runs.cut_short import check_recorded, check_whole, cut_short_by

PROBE = {"class_path": "RetainLikelihood", "init_args": {"limit": 2, "every_n_steps": 1}}


def test_a_fast_dev_run_is_not_finished_and_the_real_command_begins_anew(corpus, questions, tmp_path, caplog):
    config = settings(corpus, questions, tmp_path / "run", trainer={"callbacks": [PROBE], "max_steps": 2})
    config["trainer"]["fast_dev_run"] = True
    quick = fit(config)
    short = run_json(tmp_path / "run")
    assert (short["status"], short["steps"], short["cut_short_by"]) == ("cut_short", 1, "trainer.fast_dev_run")
    assert "result" not in short
    assert "trainer.fast_dev_run cut this run short at step 1: it is not finished" in caplog.text
    # What it left is not taken for the real run's: a measurement that the real run does not make, say.
    config["trainer"]["fast_dev_run"] = False
    config["trainer"]["callbacks"] = [{**PROBE, "init_args": {"limit": 2, "every_n_steps": 0}}]
    whole = fit(config)
    assert whole.key != quick.key
    assert is_finished(tmp_path / "run")
    assert run_json(tmp_path / "run")["steps"] == 2
    assert list(read_records(tmp_path / "run", "retain")) == [0, 2]
    assert "holds a run that trainer.fast_dev_run cut short; this one takes its place" in caplog.text
    # The other way round nothing of a finished run is lost.
    config["trainer"]["fast_dev_run"] = True
    with pytest.raises(ValueError, match="holds a run with other settings or data"):
        fit(config)
    facts = run_json(tmp_path / "run")["computed_with"]
    assert {name: facts[name] for name in ("attention", "shortcuts", "compile", "micro_batch_size", "threads", "processes")} == {
        "attention": "sdpa", "shortcuts": True, "compile": None, "micro_batch_size": 8, "threads": 1, "processes": 1,
    }  # fmt: skip
    assert facts["processor"]
    # An edited result is not what the run recorded.
    config["trainer"]["fast_dev_run"] = False
    (tmp_path / "run" / "model" / "chat_template.jinja").write_text("{{ other }}")
    with pytest.raises(ValueError, match=r"is finished, but its result changed since then \(chat_template.jinja\)"):
        fit(config)


def trainer(steps, callbacks=(), fast_dev_run=False):
    data = SimpleNamespace(total_steps=lambda: 5)
    return SimpleNamespace(global_step=steps, callbacks=list(callbacks), fast_dev_run=fast_dev_run, datamodule=data)


def test_what_cuts_a_run_short():
    late, early = Timer(timedelta(seconds=0)), Timer(timedelta(hours=1))
    assert cut_short_by(trainer(5)) is None
    assert cut_short_by(trainer(1, fast_dev_run=1)) == "trainer.fast_dev_run"
    assert cut_short_by(trainer(1, [late])) == "trainer.max_time"
    assert cut_short_by(trainer(5, [late])) is None, "it came to its end"
    assert cut_short_by(trainer(1, [early, EarlyStopping("train/loss")])) is None, "the key has the callback"


def test_a_study_of_runs_that_are_cut_short_is_refused(corpus, questions, tmp_path):
    with pytest.raises(ValueError, match=r"seed0/base: trainer\.fast_dev_run cuts every run short"):
        tree(small(corpus, questions, common={"trainer": {"fast_dev_run": True}}), tmp_path)


@pytest.mark.parametrize("check", [check_recorded, lambda config: check_whole(config, "a")])
def test_a_run_that_would_not_be_recorded_is_refused(check):
    with pytest.raises(ValueError, match=r"trainer\.barebones leaves out all that records a run"):
        check({"trainer": {"barebones": True, "fast_dev_run": False}})


def runs(*facts, kind="unlearn", stages=("inst",)):
    return [SimpleNamespace(kind=kind, stages=stages, tags={}, info={"computed_with": one} if one else {}) for one in facts]


@pytest.mark.parametrize("setting", ["shortcuts", "attention", "compile", "micro_batch_size", "threads", "processor"])
def test_a_report_says_what_compared_runs_were_computed_with(setting):
    alike = {"shortcuts": True, "attention": "sdpa", "compile": None, "micro_batch_size": 8, "threads": 1, "processor": "a"}
    assert mixtures(SimpleNamespace(runs=runs(alike, alike, None))) == []
    other = {**alike, setting: "another"}
    (line,) = mixtures(SimpleNamespace(runs=[*runs(alike, alike, other), *runs(other, kind="stage")]))
    value = alike[setting]
    assert f"The unlearning runs were not all computed alike: {setting} is" in line
    assert f"{value} in 2 runs" in line
    assert "another in 1 run." in line or "another in 1 run and" in line
    assert line.endswith(WARNING)
    assert mixtures(SimpleNamespace(runs=[*runs(alike, kind="stage"), *runs(other, kind="stage", stages=("math",))])) == []
