"""`unlearn report` as typed, and its upload to W&B: a real offline run, read back with W&B's own tool."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from test_report_study_data import StudyWriter

from unlearn_lightning.loggers import wandb_settings
from unlearn_lightning.report.command import report


@pytest.fixture
def study(tmp_path) -> Path:
    writer = StudyWriter(tmp_path, name="tried")
    for p, drop in {1: 3.0, 4: 1.5}.items():
        writer.unlearn(1, p, "npo", label={0: 0.0, 2: -drop}, phrases={0: 0.0, 2: -drop})
    folder = writer.write()
    (folder / "study.yaml").write_text("name: tried\nseeds: [1]\n")
    return folder


@pytest.fixture
def no_account(monkeypatch, tmp_path):
    for name in ("WANDB_MODE", "WANDB_API_KEY", "WANDB_PROJECT"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    monkeypatch.setenv("WANDB_DATA_DIR", str(tmp_path / "wandb-data"))


def test_the_table_and_the_place_of_the_page_are_printed(study, tmp_path, capsys):
    assert report([str(study), "--out", str(tmp_path / "out")]) == 0
    printed = capsys.readouterr().out
    assert "lowest forget score" in printed
    assert str(tmp_path / "out" / "index.html") in printed
    assert (tmp_path / "out" / "index.html").exists()


def test_two_studies_are_compared(study, capsys):
    assert report([str(study), "--against", str(study)]) == 0
    assert "the very same runs" in " ".join(capsys.readouterr().out.split())


def test_wrong_folders_end_with_status_2_and_say_what_to_give(study, tmp_path, capsys):
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").write_text("")
    (tmp_path / "refused").mkdir()
    (tmp_path / "refused/config.yaml").write_text("seed_everything: 1")
    for folder, words in (
        (tmp_path / "nowhere", "There is no folder"),
        (tmp_path / "empty", "empty is empty: there is no study.json and no run.json in it"),
        (tmp_path / "file", "is a file. Name the folder of a study or of a run"),
        (tmp_path / "refused", "starts it, and says what is wrong"),
    ):
        assert report([str(folder)]) == 2
        assert words in capsys.readouterr().err
    assert report([str(study), "--against", str(tmp_path / "empty")]) == 2
    assert not (study / "report").exists()


def test_an_unknown_format_ends_with_status_2(study, capsys):
    (study / "study.json").write_text('{"format": 99}')
    assert report([str(study)]) == 2
    assert "99" in capsys.readouterr().err


def test_wrong_options_end_with_status_2(study, capsys):
    assert report([str(study), "--upwards"]) == 2
    assert report(["--help"]) == 0
    assert "--against OTHER_STUDY" in capsys.readouterr().out


def test_help_loads_neither_figures_nor_models():
    code = "import sys; from unlearn_lightning.report.command import report; report(['--help']); print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert not {"torch", "lightning", "matplotlib", "wandb", "pandas"} & set(loaded)


def inspect(run_folder: Path) -> list[dict]:
    tool = Path(sys.executable).parent / "wandb"
    out = subprocess.run([tool, "leet", "inspect", "--json", run_folder], capture_output=True, text=True, check=True).stdout
    return [json.loads(line) for line in out.splitlines()]


@pytest.mark.usefixtures("no_account")
def test_an_offline_upload_read_back(study, capsys):
    assert report([str(study), "--upload"]) == 0
    [folder] = (study / "wandb").glob("offline-run-*")
    assert str(folder) in capsys.readouterr().out
    records = inspect(folder)
    [run] = [record["run"] for record in records if record["type"] == "run"]
    assert (run["project"], run["run_group"], run["job_type"]) == ("unlearn_lightning", "tried", "report")
    assert run["config"]["update"]["seeds"] == [1]
    [logged] = [record["history"]["item"] for record in records if record["type"] == "history"]
    assert logged["tables/closing._type"] == "table-file"
    assert logged["figures/label._type"] == "image-file"
    assert {key.split(".")[0] for key in logged if "/" in key} == {
        "tables/closing", "tables/matched_forgetting", "tables/recency", "tables/dependence", "tables/runs",
        "tables/probe_forget",
        "figures/label", "figures/paraphrases", "figures/probe_forget",
    }  # fmt: skip
    table = json.loads((folder / "files" / logged["tables/closing.path"]).read_text())
    column = table["columns"].index("forget_score")
    assert [row[column] for row in table["data"]] == [3.0, 1.5]
    image = folder / "files" / logged["figures/label.path"]
    assert image.read_bytes() == (study / "report" / "figures" / "label.png").read_bytes()
    summary = {name: value for record in records if record["type"] == "summary" for name, value in record["summary"]["update"].items()}
    assert summary["agrees"] is True
    assert records[-1]["exit"]["exit_code"] == 0


@pytest.mark.usefixtures("no_account")
def test_nothing_is_logged_when_wandb_is_disabled(study, monkeypatch, capsys):
    monkeypatch.setenv("WANDB_MODE", "disabled")
    assert report([str(study), "--upload"]) == 0
    assert not (study / "wandb").exists()
    assert "WANDB_MODE is disabled" in capsys.readouterr().out


@pytest.mark.usefixtures("no_account")
def test_when_runs_stay_offline(monkeypatch, tmp_path):
    assert wandb_settings.is_offline()
    (tmp_path / "netrc").write_text("machine api.wandb.ai login user password k")
    assert not wandb_settings.is_offline()
    monkeypatch.setenv("WANDB_MODE", "offline")
    assert wandb_settings.is_offline()
    monkeypatch.setenv("WANDB_MODE", "online")
    assert not wandb_settings.is_offline()
