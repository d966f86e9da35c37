"""A run that is killed and goes on is one run to its loggers, with each number once; another run is another one."""

import csv
import json
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
from study_runs import fit, settings
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from test_killed_runs import die, killed
from test_stopped_runs import StopAt

from unlearn_lightning.cli import lightning_cli
from unlearn_lightning.loggers.factory import run_loggers
from unlearn_lightning.loggers.resume import LoggedRun, logged_run

WANDB = Path(sys.executable).with_name("wandb")
KINDS = {
    "wandb.WandbLogger": {"project": "resumed"},
    "tensorboard.TensorBoardLogger": {"save_dir": ".", "name": "tensorboard", "version": ""},
    "mlflow.MLFlowLogger": {"experiment_name": "resumed"},
}


class Kill(StopAt):
    """`kill -9` of its own process."""

    def _stop(self, trainer, hook):
        if hook == self.hook and trainer.global_step == self.step:
            die()


@pytest.mark.skipif(not WANDB.exists(), reason="the wandb command is not installed beside this Python")
def test_a_killed_run_goes_on_as_one_run(corpus, questions, tmp_path, monkeypatch):
    from mlflow.tracking import MlflowClient

    for name in ("WANDB_MODE", "WANDB_API_KEY", "WANDB_RUN_ID", "MLFLOW_TRACKING_URI"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("NETRC", str(tmp_path / "no-netrc"))
    monkeypatch.setenv("WANDB_SILENT", "true")
    monkeypatch.chdir(tmp_path)
    logger = [{"class_path": f"lightning.pytorch.loggers.{kind}", "init_args": init} for kind, init in KINDS.items()]
    more = {"trainer": {"logger": logger, "max_steps": 6}, "checkpoint_every_n_steps": 2}
    config = settings(corpus, questions, tmp_path / "run", **more)
    killed(lambda: lightning_cli.run({"subcommand": "fit", "fit": config}, callbacks=[Kill(3)]))
    fit(config)
    import wandb

    wandb.finish()
    with (tmp_path / "run/metrics.csv").open() as file:
        expected = {int(row["step"]): float(row["train/loss"]) for row in csv.DictReader(file) if row["train/loss"]}
    assert len(expected) == 6

    (offline,) = (tmp_path / "run").glob("wandb/offline-run-*")
    (written,) = offline.glob("*.wandb")
    assert written.stem == f"run-{json.loads((tmp_path / 'run/logged_as.json').read_text())['id']}"
    read = subprocess.run([str(WANDB), "leet", "inspect", "--json", str(written)], capture_output=True, text=True, check=True).stdout
    assert all(str(value) in read for value in expected.values()), "what the killed process logged is there as well"

    client = MlflowClient(f"sqlite:///{tmp_path}/runs/mlflow.db")
    (run,) = client.search_runs([client.get_experiment_by_name("resumed").experiment_id])
    history = client.get_metric_history(run.info.run_id, "train/loss")
    assert run.info.status == "FINISHED"
    assert set(Counter(metric.step for metric in history).values()) == {1}
    assert {metric.step: metric.value for metric in history} == pytest.approx(expected)

    events = EventAccumulator(str(tmp_path / "run/tensorboard"), size_guidance={"scalars": 0})
    events.Reload()
    shown = events.Scalars("train/loss")
    assert [event.step for event in shown] == sorted(expected)
    assert [event.value for event in shown] == pytest.approx([expected[step] for step in sorted(expected)], rel=1e-6)


def test_an_id_is_of_the_folder_and_the_run(tmp_path):
    first = logged_run(tmp_path / "a", "key", None)
    assert first.goes_on_at is None
    assert logged_run(tmp_path / "a", "key", None).id == first.id
    assert logged_run(tmp_path / "b", "key", None).id != first.id, "two stores may log to one project"
    assert logged_run(tmp_path / "a", "other settings", None).id != first.id


def test_a_trials_id_is_left_alone(tmp_path, monkeypatch):
    monkeypatch.delenv("WANDB_MODE", raising=False)
    for given, expected in ((None, "ours"), ("the agent's", None)):
        if given:
            monkeypatch.setenv("WANDB_RUN_ID", given)
        logger = run_loggers(tmp_path / "run", {"trainer": {"logger": None}}, {}, LoggedRun("ours"))[-1]
        assert logger._wandb_init["id"] == expected
