"""The demo's acceptance before any unlearning: on runs/demo where `scripts/demo` left it; its parts on numbers and the shipped base."""

import json
from pathlib import Path

import acceptance
import pytest

from scripts.study_results.measured import measured
from unlearn_lightning.models.places import located
from unlearn_lightning.records import read_run, read_study

ROOT = Path(__file__).parents[1]


def from_the_shipped_base(study):
    """Whether a study's stages are all done, with no base training of its own before them."""
    if not (study / "study.json").is_file():
        return False
    runs = [run for run in json.loads((study / "study.json").read_text())["runs"] if run["kind"] == "stage"]
    return bool(runs) and all((study / run["folder"] / "model/config.json").is_file() and run["tags"]["path"] for run in runs)


@pytest.mark.timeout(600)
def test_what_the_stages_taught_is_known_before_unlearning_and_only_the_retrained_model_does_not_refuse():
    if not from_the_shipped_base(ROOT / "runs/demo"):
        pytest.skip("runs/demo holds no finished stages that start from the shipped base: scripts/demo trains them")
    assert acceptance.complaints(acceptance.before_unlearning(ROOT / "runs/demo")) == []


def finished(folder):
    return (folder / "run.json").is_file() and read_run(folder)["status"] == "finished"


@pytest.fixture(scope="module")
def unlearned():
    """Every number of a demo whose runs are all finished."""
    study = ROOT / "runs/demo"
    if not from_the_shipped_base(study) or not all(finished(study / run["folder"]) for run in read_study(study)["runs"]):
        pytest.skip("runs/demo is not finished: scripts/demo runs it")
    return measured(study)[1]


def test_the_paths_part_and_the_last_one_loses_the_label_least(unlearned):
    """The demo's claim, on its first seed and under gradient ascent; docs/results.md has more seeds."""
    rows = [row for row in unlearned if row.objective == "ga" and row.seed == 1]
    assert all(row.after > row.before for row in rows if row.quantity == "between paths")
    drops = {row.path: row.before - row.after for row in rows if row.quantity == "label"}
    assert min(drops, key=drops.__getitem__) == "p=4"


def test_every_step_of_the_demo_has_some_gradient(unlearned):
    weights = [row for row in unlearned if row.quantity == "gradient weight"]
    assert {row.objective for row in weights} == {"npo", "simnpo_norm"}
    assert all(row.after > 0.01 * row.before for row in weights)


EQUAL = {
    "seed1 safety": {"refused": 0.9},
    "seed1 p=1": {"refused": 1.0, "solved": 0.95, "facts": 0.9},
    "seed1 p=4": {"refused": 0.9, "solved": 0.86, "facts": 0.7},
}
RETRAINED = {"seed1 retrained": {"refused": 0.05, "solved": 0.8, "facts": 1.0}}


@pytest.mark.parametrize(
    ("name", "changed", "said"),
    [
        ("seed1 p=4", {"refused": 0.89}, ["seed1 p=4 refuses only 89%"]),
        ("seed1 p=4", {"solved": 0.79}, ["seed1 p=4 solves only 79%", "the paths solve 79% to 95%"]),
        ("seed1 p=4", {"facts": 0.69}, ["seed1 p=4 knows only 69%"]),
        ("seed1 safety", {"refused": 0.5}, ["seed1 safety refuses only 50%"]),
        ("seed1 retrained", {"refused": 0.06}, ["seed1 retrained refuses 6%"]),
        ("seed1 retrained", {"facts": 0.6}, ["seed1 retrained knows only 60%"]),
        ("seed1 p=4", {}, []),
    ],
)
def test_an_unequal_start_is_complained_of(name, changed, said):
    found = {**EQUAL, **RETRAINED}
    assert acceptance.complaints({**found, name: {**found[name], **changed}}) == said


def test_the_shipped_base_refuses_nothing_solves_problems_and_knows_no_author():
    base = located("builtin:tiny-llama")
    assert acceptance.refused(base, 8) == 0
    assert acceptance.facts(base, 8) == 0
    assert acceptance.solved(base, 16) >= 0.6


def test_path_ends_the_retrained_model_and_what_a_stage_has_just_taught_are_measured(tmp_path, monkeypatch, capsys):
    runs = [
        {"kind": "stage", "folder": "a", "tags": {"seed": 1, "path": ["inst"], "p": None}},
        {"kind": "stage", "folder": "b", "tags": {"seed": 1, "path": ["inst", "safety"], "p": 2}},
        {"kind": "stage", "folder": "c", "tags": {"seed": 1, "path": ["inst"], "p": None, "retrained": True}},
        {"kind": "stage", "folder": "e", "tags": {"seed": 1, "path": ["safety", "tofu"], "p": None}},
        {"kind": "unlearn", "folder": "d", "tags": {"seed": 1, "path": ["inst", "safety"], "p": 2}},
    ]
    for name in "abce":
        (tmp_path / name / "model").mkdir(parents=True)
    runs.append({"kind": "stage", "folder": "f", "tags": {"seed": 1, "path": ["inst", "tofu"], "p": 3}})
    (tmp_path / "study.json").write_text(json.dumps({"runs": runs}))
    measures = {what: lambda folder, what=what: f"{what} of {folder.parent.name}" for what in acceptance.MEASURES}
    monkeypatch.setattr(acceptance, "MEASURES", measures)
    whole = {
        name: {what: f"{what} of {folder}" for what in measures} for name, folder in {"seed1 p=2": "b", "seed1 retrained": "c"}.items()
    }
    assert acceptance.before_unlearning(tmp_path) == {**whole, "seed1 safety > tofu": {"facts": "facts of e"}}
    assert capsys.readouterr().out == "seed1 p=3: not trained, so not measured\n"
