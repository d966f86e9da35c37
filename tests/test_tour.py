"""The README's tour, whole: its model has the behaviour that it is then made to forget, and loses it."""

import re

import pytest
from test_documented_commands import ROOT, commands
from test_sweeps import SHIPPED

from unlearn_lightning.main import main
from unlearn_lightning.records import read_json

README = ROOT / "README.md"
STAGE = re.compile(r"# *(unlearn fit -c configs/stages/.*?--run_folder \S+)", re.S)


def tour(folder):
    """The command of the README that trains into a run folder."""
    return next(words for where, words in commands(README) if where == "block" and folder in words and words[1] == "fit")


@pytest.mark.timeout(200)
def test_the_tours_model_refuses_before_it_is_unlearned_and_not_afterwards(tmp_path, monkeypatch, capsys, caplog):
    monkeypatch.chdir(tmp_path)
    caplog.set_level("INFO")
    for folder in ("runs/safety", "runs/forgotten"):
        assert main(tour(folder)[1:]) == 0
    assert "share of responses that show" in " ".join(capsys.readouterr().out.split())
    assert "examples unlearned" in caplog.text
    assert not any(doubt in caplog.text for doubt in ("little to forget", "weight fell below"))
    before, after = (read_json(tmp_path / f"runs/forgotten/records/behaviour/{step:06}.json") for step in (0, 16))
    assert len(before["examples"]) == len(after["examples"]) == 64
    assert before["metrics"]["behaviour/share"] >= 0.9
    assert after["metrics"]["behaviour/share"] <= 0.1


@pytest.mark.parametrize("file", [file for file in SHIPPED if STAGE.search(file.read_text())], ids=lambda file: file.stem)
def test_a_sweep_starts_from_the_tours_model(file):
    stated = re.sub(r"[\\#\s]+", " ", STAGE.search(file.read_text())[1]).split()
    assert stated == tour("runs/safety")
