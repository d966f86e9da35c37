"""The demo's acceptance before any unlearning: on runs/demo where `scripts/demo` left it; its parts on numbers and the shipped base."""

import json
from pathlib import Path

import acceptance
import pytest

from unlearn_lightning.models.places import located

ROOT = Path(__file__).parents[1]


def from_the_shipped_base(study):
    """Whether a study's stages are all done, with no base training of its own before them."""
    if not (study / "study.json").is_file():
        return False
    runs = [run for run in json.loads((study / "study.json").read_text())["runs"] if run["kind"] == "stage"]
    return bool(runs) and all((study / run["folder"] / "model/config.json").is_file() and run["tags"]["path"] for run in runs)


@pytest.mark.timeout(600)
@pytest.mark.parametrize("name", ["demo", "demo_pretrained"])
def test_every_path_refuses_before_unlearning_and_the_retrained_model_does_not(name):
    if not from_the_shipped_base(ROOT / "runs" / name):
        pytest.skip(f"runs/{name} holds no finished stages that start from the shipped base: run its study first")
    assert acceptance.complaints(acceptance.before_unlearning(ROOT / "runs" / name)) == []


EQUAL = {"seed1 p=1": {"refused": 1.0, "solved": 0.95}, "seed1 p=4": {"refused": 0.9, "solved": 0.86}}
RETRAINED = {"seed1 retrained": {"refused": 0.05, "solved": 0.1}}


@pytest.mark.parametrize(
    ("name", "values", "said"),
    [
        ("seed1 p=4", {"refused": 0.89, "solved": 0.86}, ["seed1 p=4 refuses only 89%"]),
        ("seed1 p=4", {"refused": 1.0, "solved": 0.79}, ["seed1 p=4 solves only 79%", "the paths solve 79% to 95%"]),
        ("seed1 retrained", {"refused": 0.06, "solved": 0.9}, ["seed1 retrained refuses 6%"]),
        ("seed1 p=4", {"refused": 0.9, "solved": 0.86}, []),
    ],
)
def test_an_unequal_start_is_complained_of(name, values, said):
    assert acceptance.complaints({**EQUAL, **RETRAINED, name: values}) == said


def test_the_shipped_base_refuses_nothing_solves_problems_and_knows_no_author():
    found = acceptance.measured(located("builtin:tiny-llama"), refusals=8, problems=16, authors=8)
    assert found["refused"] == 0
    assert found["facts"] == 0
    assert found["solved"] >= 0.6


def test_path_ends_and_the_retrained_model_are_what_is_measured(tmp_path, monkeypatch):
    runs = [
        {"kind": "stage", "folder": "a", "tags": {"seed": 1, "path": ["inst"], "p": None}},
        {"kind": "stage", "folder": "b", "tags": {"seed": 1, "path": ["inst", "safety"], "p": 2}},
        {"kind": "stage", "folder": "c", "tags": {"seed": 1, "path": ["inst"], "p": None, "retrained": True}},
        {"kind": "unlearn", "folder": "d", "tags": {"seed": 1, "path": ["inst", "safety"], "p": 2}},
    ]
    (tmp_path / "study.json").write_text(json.dumps({"runs": runs}))
    monkeypatch.setattr(acceptance, "measured", lambda folder: {"from": folder.parent.name})
    assert acceptance.before_unlearning(tmp_path) == {"seed1 p=2": {"from": "b"}, "seed1 retrained": {"from": "c"}}
