"""Numbers that are none, and records that cannot be read: the report is made without them and names their runs."""

import json
import math
from pathlib import Path

import pytest
from test_report_study_data import StudyWriter, write_json

from unlearn_lightning import records
from unlearn_lightning.records.study_data import load_study
from unlearn_lightning.report.command import report
from unlearn_lightning.report.distances import Distances
from unlearn_lightning.report.outcomes import summarize
from unlearn_lightning.study.frame import ProbeMetrics

NOT_FINITE = [math.nan, math.inf, -math.inf, None]


def study_of(folder: Path) -> tuple[Path, Path]:
    """A study of two paths at four steps, and the run folder of the last path."""
    writer = StudyWriter(folder)
    runs = {}
    writer.retrained(1, {"a": [0.0]})
    for p, drop in {1: 3.0, 4: 1.5}.items():
        curve = {step: -drop * step for step in (0, 2, 4, 6)}
        vectors = {step: {"a": [0.1 + drop * step]} for step in curve}
        runs[p] = writer.unlearn(1, p, "npo", label=curve, phrases=curve, tofu=curve, accuracy={0: 0.5, 6: 0.25}, vectors=vectors)
    return writer.write(), runs[4]


def change(run: Path, probe: str, step: int, **parts) -> None:
    path = records.record_path(run, probe, step)
    write_json(path, {**json.loads(path.read_text()), **parts})  # with bare NaN and Infinity, as versions before wrote it


@pytest.fixture
def without_figures(monkeypatch):
    """Figures take most of a report's time. The test of numbers that are none draws them."""
    monkeypatch.setattr("unlearn_lightning.report.report.save_figures", lambda *_: [])


def made(study: Path, capsys) -> str:
    """What `unlearn report` prints, in one line of words; the page must say the same of the run."""
    assert report([str(study)]) == 0
    printed = " ".join(capsys.readouterr().out.split())
    page = (study / "report" / "index.html").read_text().split("<script")[0]
    assert ("seed1/p4/npo: " in printed) == ("seed1/p4/npo: " in page)
    return printed


def test_numbers_that_are_none_are_drawn_without_and_named(tmp_path, capsys):
    study, run = study_of(tmp_path)
    for step, value in zip((0, 2, 4, 6), NOT_FINITE, strict=True):
        change(run, "forget", step, metrics={"forget/label_log_lik": value, "forget/phrases_log_lik": -1.0 * step})
        change(run, "retain", step, metrics={"retain/tofu_log_lik": value})
        change(run, "divergence", step, examples=[{"id": "a", "token_log_lik": [value]}])
    printed = made(study, capsys)
    assert "seed1/p4/npo: left out of figures and tables, as no finite numbers: forget/label_log_lik at step 0, 2, 4, 6" in printed
    assert "predictions at step 0, 2, 4, 6" in printed
    assert (study / "report" / "figures" / "label.png").is_file()


@pytest.mark.parametrize("value", NOT_FINITE)
def test_an_end_that_is_no_number_is_a_dash_and_not_the_step_before(value, tmp_path):
    study, run = study_of(tmp_path)
    change(run, "forget", 6, metrics={"forget/label_log_lik": value, "forget/phrases_log_lik": -5.0})
    loaded = load_study(study)
    row = summarize(loaded, Distances(loaded))[1]
    assert row.values["label_drop"].text() == "–"
    assert row.values["forget_score"].mean == 5.0


@pytest.mark.parametrize(
    "damage",
    [
        '{"format": 1, "metr', "", "null", "[]", "\udcff", '{"format": 1, "metrics": []}',
        '{"format": 1, "metrics": {"forget/label_log_lik": "x"}}',
        '{"format": 1, "metrics": {"forget/label_log_lik": [1.0]}}', '{"format": 1, "metrics": {"forget/label_log_lik": true}}',
        '{"format": 1, "metrics": {}, "examples": 3}', '{"format": 1, "metrics": {}, "examples": [{"text": "no id"}]}',
        '{"format": 1, "metrics": {}, "examples": [{"id": "a", "label_log_lik": "low"}]}',
        '{"format": 1, "metrics": {}, "examples": [{"id": "a", "text": 3}]}', '{"format": 1, "metrics": null}',
    ],
)  # fmt: skip
def test_a_damaged_record_is_left_out_and_named(damage, tmp_path, capsys, without_figures):
    study, run = study_of(tmp_path)
    records.record_path(run, "forget", 4).write_bytes(damage.encode("utf-8", "surrogateescape"))
    assert "seed1/p4/npo: a record is left out, as records/forget/000004.json" in made(study, capsys)
    ProbeMetrics().of(run)


def test_a_damaged_vector_and_damaged_attempts_are_left_out(tmp_path, capsys, without_figures):
    study, run = study_of(tmp_path)
    change(run, "divergence", 6, examples=[{"id": "a", "token_log_lik": "x"}])
    change(run, "gsm8k", 6, examples=[{"id": "m", "attempts": [3], "correct": [True]}])
    printed = made(study, capsys)
    assert "records/divergence/000006.json has a wrong token_log_lik" in printed
    assert "records/gsm8k/000006.json has a wrong attempts" in printed


def test_a_damaged_run_json_costs_that_run_only(tmp_path, capsys, without_figures):
    study, run = study_of(tmp_path)
    (run / "run.json").write_text('{"format": 1, "sta')
    assert report([str(study)]) == 0
    assert "seed1/p4/npo is left out: " in " ".join(capsys.readouterr().out.split())


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_records_are_json(value, tmp_path):
    path = records.record_path(tmp_path, "forget", 0)
    records.write_json(path, {"metrics": {"x": value, "y": 1.5}, "examples": [{"id": "NaN", "v": [value, -0.5], "t": (value,)}]})

    def refuse(name):
        raise AssertionError(f"{name} is no JSON")

    content = json.loads(path.read_text(), parse_constant=refuse)
    assert content["metrics"] == {"x": None, "y": 1.5}
    assert content["examples"] == [{"id": "NaN", "v": [None, -0.5], "t": [None]}]
    assert math.isnan(records.number(records.read_json(path)["metrics"]["x"]))


def test_a_number_is_read():
    assert records.number(3) == 3.0
    assert all(math.isnan(records.number(value)) for value in NOT_FINITE)
    for wrong in ("NaN", True, [1.0], {}):
        with pytest.raises(ValueError, match="not a number"):
            records.number(wrong)
