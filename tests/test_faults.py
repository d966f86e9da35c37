"""Faults of use: a short selection of what scripts/faults does with files of other runs, caches, code of others and hostile fields."""

import random

import fault_code
import fault_uses as uses
import pytest
from fault_cases import make_runs
from study_runs import fit, settings

from unlearn_lightning.cli.errors import foreign_place, line
from unlearn_lightning.main import main
from unlearn_lightning.study.changes import refuse_other_study

GOOD = {"named", "harmless", "equal"}


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    return make_runs(tmp_path_factory.mktemp("faults") / "runs")


def faulty(cases):
    found = list(cases)
    assert len(found) > 4
    assert {case[1] for case in found} <= {*GOOD, "silent", "crash"}
    return [case for case in found if case[1] not in GOOD]


def test_files_of_another_run_are_named_by_whoever_uses_them(runs, tmp_path):
    assert faulty(uses.swap_cases(tmp_path, runs)) == []


def test_damaged_caches_are_made_again(runs, tmp_path, monkeypatch):
    monkeypatch.setattr(uses, "DAMAGES", {name: uses.DAMAGES[name] for name in ("cut", "flipped", "deep", "wrong values")})
    assert faulty(uses.cache_cases(tmp_path, runs, random.Random(1))) == []


def test_hostile_fields_are_read_as_text_or_named(runs):
    assert faulty(uses.field_cases(runs)) == []


CODE = (
    "RuntimeError at import", "KeyError in metrics", "ends the process", "gives a row too many", "gives tensors",
    "gives a vector for a metric", "gives NaN",
)  # fmt: skip


def test_a_probe_of_others_that_fails_is_named(runs, tmp_path, monkeypatch):
    monkeypatch.setattr(fault_code, "CODE", {name: fault_code.CODE[name] for name in CODE})
    assert faulty(fault_code.code_cases(tmp_path, runs)) == []


def test_a_section_of_others_that_fails_is_left_out_and_named(runs, tmp_path):
    assert faulty(fault_code.section_cases(tmp_path, runs)) == []


def test_code_that_ends_the_process_does_not_end_it_as_if_all_was_done(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "ends_it.py").write_text("raise SystemExit(0)")
    assert main(["fit", "--trainer.callbacks", "ends_it.Probe"]) == 1
    assert f"SystemExit, raised in {tmp_path / 'ends_it.py'}, line 1" in capsys.readouterr().err


def test_an_error_of_this_package_has_no_foreign_place(tmp_path):
    with pytest.raises(FileNotFoundError) as error:
        fit(settings("none.jsonl", "none.jsonl", tmp_path / "run"))
    assert foreign_place(error.value) == ""
    assert "raised in" not in line(error.value)


def test_a_study_takes_no_other_ones_folder(tmp_path):
    refuse_other_study(tmp_path, {"name": "a"}, "a")
    with pytest.raises(ValueError, match=r"holds the study 'b', and this one is 'a'\. Name another --folder"):
        refuse_other_study(tmp_path, {"name": "b"}, "a")
