"""Bad input is refused before work starts, and what stops a run in the middle loses nothing."""

import os
import re
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
import yaml
from study_runs import command, fit, metrics_text, run_json, settings, weights

from unlearn_lightning.cli import lightning_cli
from unlearn_lightning.modules import StageFineTuning
from unlearn_lightning.runs import resume
from unlearn_lightning.runs.run_folder import check_writable


def test_batch_size_must_fit_the_devices(corpus, questions, tmp_path):
    config = settings(corpus, questions, tmp_path / "run", data={"init_args": {"batch_size": 8, "micro_batch_size": 3}})
    with pytest.raises(ValueError, match=r"batch_size 8 must be a multiple of micro_batch_size 3 x 1 device\(s\)"):
        fit(config)


def test_accumulation_is_derived_and_not_typed(corpus, questions, tmp_path):
    with pytest.raises(
        ValueError, match=r"trainer\.accumulate_grad_batches is 4, but batch_size 8 on 1 device\(s\) with 8 at once takes 1"
    ):
        fit(settings(corpus, questions, tmp_path / "run", trainer={"accumulate_grad_batches": 4}))


def test_a_limited_epoch_counts_optimizer_steps_whatever_the_micro_batches(corpus, questions, tmp_path):
    limited = {"limit_train_batches": 2, "max_epochs": 2, "max_steps": -1}
    for micro in (8, 2):
        data = {"init_args": {"micro_batch_size": micro}}
        done = fit(settings(corpus, questions, tmp_path / f"micro{micro}", data=data, trainer=limited))
        assert done.trainer.global_step == 4, "two of the three steps of each epoch"
    for key, value in weights(tmp_path / "micro8").items():
        torch.testing.assert_close(weights(tmp_path / "micro2")[key], value, atol=1e-5, rtol=0)
    half = fit(settings(corpus, questions, tmp_path / "half", trainer={**limited, "limit_train_batches": 0.7}))
    assert half.trainer.global_step == 4
    with pytest.raises(ValueError, match=r"limit_train_batches 0\.1 of 3 optimizer steps an epoch is less than one step"):
        fit(settings(corpus, questions, tmp_path / "none", trainer={**limited, "limit_train_batches": 0.1}))
    with pytest.raises(ValueError, match=r"overfit_batches would replace the stage's sampler"):
        fit(settings(corpus, questions, tmp_path / "overfit", trainer={"overfit_batches": 1}))


def test_a_bad_line_is_named_by_the_command_without_a_traceback(corpus, questions, tmp_path):
    Path(questions).write_text('{"prompt": "a", "response": "b"}\n{broken\n')
    file = tmp_path / "run.yaml"
    file.write_text(yaml.safe_dump(settings(corpus, questions, tmp_path / "run")))
    status, said = command("fit", "-c", str(file))
    assert status == 1
    assert "questions.jsonl:2: not JSON" in said
    assert "Traceback" not in said


def test_a_run_folder_that_cannot_be_written(corpus, questions, tmp_path):
    blocked = tmp_path / "file"
    blocked.write_text("not a folder")
    with pytest.raises(OSError, match=r"cannot be written \(Not a directory\)"):
        fit(settings(corpus, questions, blocked / "run"))


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_full_disk_is_found_before_training(corpus, questions, tmp_path, monkeypatch):
    steps = []
    monkeypatch.setattr(StageFineTuning, "training_step", lambda *_: steps.append(1))
    monkeypatch.setattr(os, "fsync", lambda _: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    with pytest.raises(OSError, match=r"cannot be written \(No space left on device\). Nothing was trained"):
        fit(settings(corpus, questions, tmp_path / "run"))
    assert not steps


def test_a_loss_that_is_no_number_stops_names_the_step_and_keeps_the_last_good_checkpoint(corpus, questions, tmp_path, monkeypatch):
    plain = StageFineTuning.loss

    def spoiled(self, batch):
        return plain(self, batch) * (float("nan") if self.trainer.global_step == 3 else 1.0)

    monkeypatch.setattr(StageFineTuning, "loss", spoiled)
    config = settings(corpus, questions, tmp_path / "run", checkpoint_every_n_steps=1)
    with pytest.raises(FloatingPointError, match="Step 4: the loss is nan"):
        fit(config)
    assert run_json(tmp_path / "run")["status"] == "failed"
    assert "Step 4" in run_json(tmp_path / "run")["error"]
    checkpoint = torch.load(tmp_path / "run/checkpoints/last.ckpt", weights_only=True)
    assert checkpoint["global_step"] == 3
    assert all(v.isfinite().all() for v in checkpoint["state_dict"].values())

    monkeypatch.undo()
    fit(config)
    fit({**config, "run_folder": str(tmp_path / "straight")})
    for key, value in weights(tmp_path / "straight").items():
        assert torch.equal(weights(tmp_path / "run")[key], value)


LORA = {"lora": {"rank": 4, "alpha": 8, "dropout": 0.2}}
ROUNDS = {
    "plain": {},
    "accumulated": {"data": {"init_args": {"micro_batch_size": 2}}},
    "two workers": {"data": {"init_args": {"num_workers": 2}}},
}


class Stop(Exception):
    pass


class StopAt(lightning_cli.pl.Callback):
    """Stops before a step's batch, at an epoch's end, or when all steps are done."""

    def __init__(self, step, hook="batch"):
        self.step, self.hook = step, hook

    def _stop(self, trainer, hook):
        if hook == self.hook and trainer.global_step == self.step:
            raise Stop

    def on_train_batch_start(self, trainer, *_):
        self._stop(trainer, "batch")

    def on_train_epoch_end(self, trainer, *_):
        self._stop(trainer, "epoch")

    def on_train_end(self, trainer, *_):
        self._stop(trainer, "end")


LIMITS = {"steps": {"max_steps": 9, "max_epochs": -1}, "epochs": {"max_steps": -1, "max_epochs": 3}}
# What micro-batches and workers add is where the data goes on, inside an epoch and at its end; what a limit of epochs adds, their ends.
STOPS = {
    ("plain", "steps"): [(1, "batch"), (3, "batch"), (4, "batch"), (7, "batch"), (3, "epoch"), (9, "epoch"), (9, "end")],
    ("plain", "epochs"): [(7, "batch"), (3, "epoch"), (9, "epoch"), (9, "end")],
    ("accumulated", "steps"): [(3, "batch"), (7, "batch"), (3, "epoch")],
    ("accumulated", "epochs"): [(3, "epoch")],
    ("two workers", "steps"): [(4, "batch")],
}


@pytest.mark.parametrize(("kind", "limit"), STOPS)
def test_a_stopped_run_goes_on_to_the_same_weights(kind, limit, corpus, questions, tmp_path):
    """3 steps an epoch, 9 in all: stopped inside epochs, on their last batch and behind the last; with dropout and a cached reference."""
    more = {**ROUNDS[kind], "model": {"init_args": {"backbone": LORA}}, "trainer": LIMITS[limit], "checkpoint_every_n_steps": 1}
    if kind == "plain":
        more["model"]["init_args"]["cache_reference"] = True
    cls = "NPO" if kind == "plain" else "StageFineTuning"
    fit(settings(corpus, questions, tmp_path / "straight", cls, **more))
    for step, hook in STOPS[kind, limit]:
        name = f"{hook}{step}"
        stopped = settings(corpus, questions, tmp_path / name, cls, **more)
        with pytest.raises(Stop):
            lightning_cli.run({"subcommand": "fit", "fit": stopped}, callbacks=[StopAt(step, hook)])
        fit(stopped)
        for key, value in weights(tmp_path / "straight").items():
            assert torch.equal(weights(tmp_path / name)[key], value), (name, key)
        same = [{k: run_json(tmp_path / n)[k] for k in ("tokens", "steps", "examples")} for n in (name, "straight")]
        assert same[0] == same[1], name
        csv = [metrics_text(tmp_path / n) for n in (name, "straight")]
        assert csv[0] == csv[1], "a step is there twice, or missing"
        assert not (tmp_path / name / "checkpoints").exists()


@pytest.mark.parametrize("stops", [(3, 9, 11), (2, 6, 9)], ids=str)
def test_stopped_again_and_again_at_the_ends_of_epochs(stops, corpus, questions, tmp_path):
    """3 steps an epoch: what was resumed at an epoch's end is resumed there again."""
    more = {"trainer": {"max_steps": 12, "max_epochs": -1}, "checkpoint_every_n_steps": 1}
    fit(settings(corpus, questions, tmp_path / "straight", **more))
    config = settings(corpus, questions, tmp_path / "run", **more)
    for step in stops:
        with pytest.raises(Stop):
            lightning_cli.run({"subcommand": "fit", "fit": config}, callbacks=[StopAt(step)])
    fit(config)
    for key, value in weights(tmp_path / "straight").items():
        assert torch.equal(weights(tmp_path / "run")[key], value)


def test_checkpoints_hold_trainable_weights_and_what_the_whole_way_says(corpus, questions, tmp_path):
    """Everything that a checkpoint of NPO may hold is in this one, and the list in runs/resume.py names it."""
    probe = {"class_path": "RetainLikelihood", "init_args": {"limit": 1, "every_n_steps": 2}}
    more = {"model": {"init_args": {"backbone": LORA, "cache_reference": True}}, "checkpoint_every_n_steps": 1}
    config = settings(corpus, questions, tmp_path / "run", "NPO", trainer={"callbacks": [probe]}, **more)
    with pytest.raises(Stop):
        lightning_cli.run({"subcommand": "fit", "fit": config}, callbacks=[StopAt(2)])
    checkpoint = torch.load(tmp_path / "run/checkpoints/last.ckpt", weights_only=True)
    assert checkpoint["state_dict"]
    assert all("lora" in key for key in checkpoint["state_dict"])
    named = set(re.findall(r"^ {6}(\S+)", resume.__doc__, re.MULTILINE))
    # What NPO does not need: it compares log-likelihoods alone.
    assert set(checkpoint) == named - {"reference_logits", "reference_activations", "multiplier", "subspaces"}
    assert checkpoint["callbacks"]["RetainLikelihood.retain"]["measured_step"] == 2, "it is not measured again"
    assert checkpoint["callbacks"]["RunRecorder"]["seconds"] > 0


def test_several_processes_may_look_at_one_folder_at_once(tmp_path):
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(check_writable, [tmp_path / "run"] * 200))
    assert not list((tmp_path / "run").iterdir())
