"""What W&B gets: a real offline run, read back with W&B's own tool."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import wandb
from rich.console import Console
from study_runs import fit, settings

from unlearn_lightning.study.local import Local
from unlearn_lightning.study.work import Work

WANDB = Path(sys.executable).with_name("wandb")


@pytest.mark.skipif(not WANDB.exists() and not shutil.which("wandb"), reason="the wandb command is not installed beside this Python")
def test_metrics_and_the_whole_configuration_are_in_the_offline_run(corpus, questions, tmp_path, monkeypatch):
    monkeypatch.delenv("WANDB_MODE")
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    monkeypatch.setenv("NETRC", str(tmp_path / "no-netrc"))
    monkeypatch.setenv("WANDB_SILENT", "true")
    data = {"class_path": "ChatStage", "init_args": {"source": questions, "held_out_source": questions}}
    probe = {"class_path": "RetainLikelihood", "init_args": {"data": data, "limit": 3, "every_n_steps": 2}}
    fit(settings(corpus, questions, tmp_path / "run", "NPO", trainer={"callbacks": [probe]}))
    wandb.finish()

    (file,) = (tmp_path / "run").glob("wandb/offline-run-*/run-*.wandb")
    read = subprocess.run([str(WANDB), "leet", "inspect", "--json", str(file)], capture_output=True, text=True, check=True).stdout
    records = [json.loads(line) for line in read.splitlines() if line.strip().startswith("{")] or json.loads(read)
    text = json.dumps(records)
    csv = (tmp_path / "run" / "metrics.csv").read_text()
    assert "retain/chat_log_lik" in text
    assert "train/loss" in text
    header, *lines = csv.splitlines()
    column = header.split(",").index("retain/chat_log_lik")
    values = [line.split(",")[column] for line in lines if line.split(",")[column]]
    assert len(values) == 4
    assert all(value in text for value in values), "W&B and CSV hold the same numbers"
    # The whole resolved configuration, not only the module's arguments.
    for part in ("micro_batch_size", "max_steps", "RetainLikelihood", "weight_decay"):
        assert part in text


def test_a_studys_runs_are_grouped_and_tagged(corpus, questions, tmp_path, monkeypatch):
    from test_study import config_of, small, tree

    for name in ("WANDB_MODE", "WANDB_API_KEY", "WANDB_PROJECT"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("NETRC", str(tmp_path / "no-netrc"))
    settings = small(corpus, questions, retrained=False, positions=[2], base={"trainer": {"max_epochs": 1}})
    settings["objectives"] = {"npo": settings["objectives"]["npo"]}
    runs = tree(settings, tmp_path / "store")
    Local(jobs=1).launch(Work(config_of(settings), runs, tmp_path / "study", Console(quiet=True)))
    (file,) = runs[-1].folder.glob("wandb/offline-run-*/run-*.wandb")
    text = subprocess.run([str(WANDB), "leet", "inspect", "--json", str(file)], capture_output=True, text=True, check=True).stdout
    for said in ("small", "unlearn", "seed0/p2/npo", "seed=0", "p=2", "objective=npo", "path=inst-safety-math"):
        assert f'"{said}"' in text, said
