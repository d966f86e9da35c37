"""What a run that goes on finds again, and that the module which tells the whole way (runs/resume.py) tells it as it is."""

import re
from pathlib import Path
from pkgutil import resolve_name
from types import SimpleNamespace

import pytest
import torch
from test_security import Bomb, mark  # noqa: F401

import callbacks
from unlearn_lightning import data, modules
from unlearn_lightning.cli import unlearn_cli
from unlearn_lightning.loggers import resume as loggers_resume
from unlearn_lightning.runs import checkpoint, resume, run_recorder
from unlearn_lightning.runs.checkpoint import WholeFileIO, delete_checkpoints, last_checkpoint
from unlearn_lightning.runs.metrics_file import RunMetrics
from unlearn_lightning.runs.resume import Pace, Resume, checkpoint_to_resume, first_step_again, fit_progress

TOLD = (callbacks, checkpoint, data, loggers_resume, modules, resume, run_recorder, unlearn_cli)


def test_progress_is_converted_at_optimizer_steps_only():
    def progress(ready, before=0):
        counts = [{"ready": n, "started": n, "processed": n, "completed": n - 1} for n in (before + ready, ready)]
        return {"total": counts[0], "current": counts[1], "is_last_batch": False}

    # Epochs of three steps, the last of them short: 4 + 4 + 2 micro-batches on one device, 2 + 2 + 1 on two.
    one, two = Pace(accumulation=4, micro_batches=10), Pace(accumulation=2, micro_batches=5)
    for saved, ready, before, now, expected, expected_before in [
        (one, 4, 0, two, 2, 0), (one, 10, 0, two, 5, 0), (two, 2, 5, one, 4, 10), (two, 5, 5, one, 10, 10), (one, 8, 10, one, 8, 10),
    ]:  # fmt: skip
        found = progress(ready, before)
        fit_progress(found, saved, now)
        assert found == progress(expected, expected_before)
    with pytest.raises(ValueError, match="after 3 micro-batches, in the middle of an optimizer step of 4"):
        fit_progress(progress(3), one, two)


@pytest.mark.parametrize("name", sorted(set(re.findall(r"`([A-Za-z_.]+)`", resume.__doc__ or "")) - {"checkpoint_every_n_steps", "loops"}))
def test_every_name_of_the_whole_way_is_there(name):
    if name[0].isupper():
        head, *rest = name.split(".")
        found = next(vars(module)[head] for module in TOLD if head in vars(module))
        assert all(hasattr(found, part) for part in rest)
    else:
        assert callable(resolve_name(f"unlearn_lightning.{name}") if "." in name else vars(resume)[name])


def trainer_of(folder, restores_late=False):
    """As much of a Trainer as `Resume` asks for; one device takes 4 micro-batches per step, and 10 per epoch."""
    return SimpleNamespace(
        loggers=[RunMetrics(folder)], is_global_zero=True, strategy=SimpleNamespace(restore_checkpoint_after_setup=restores_late),
        accumulate_grad_batches=4, datamodule=SimpleNamespace(micro_batches_per_epoch=lambda: 10), log_every_n_steps=1, global_step=2,
        current_epoch=0, logged_metrics={"other": torch.tensor(0.5)},
    )  # fmt: skip


class Told(Resume):
    """Remembers what other loggers would be told."""

    rows: list[dict[str, str]] | None = None

    def tell_loggers(self, trainer, rows):
        assert self.rows is None, "they were told twice"
        self.rows = list(rows())


def logged(trainer, steps):
    for step in steps:
        trainer.loggers[0].log_metrics({"train/loss": 5.0 - step}, step=step)
    trainer.loggers[0].save()


def goes_on(file, trainer, hooks):
    back = Told(file)
    counts = {name: {"ready": 8, "started": 8, "processed": 8, "completed": 8} for name in ("total", "current")}
    loops = {"fit_loop": {"epoch_progress": {"current": {"ready": 0, "processed": 0}}, "epoch_loop.batch_progress": counts}}
    saved = {"loops": loops}
    Resume(None).on_save_checkpoint(trainer, None, saved)
    logged(trainer, [2, 3])
    for hook in hooks:
        getattr(back, hook)(trainer, None, *([saved] if hook == "on_load_checkpoint" else []))
    return back, loops["fit_loop"]


@pytest.mark.parametrize("late", [False, True], ids=["before the fit starts", "after it, as under FSDP2"])
def test_metrics_are_taken_back_whenever_lightning_restores(late, tmp_path):
    trainer = trainer_of(tmp_path, restores_late=late)
    logged(trainer, [0, 1])
    hooks = ["on_load_checkpoint", "on_fit_start"]
    back, loop = goes_on("some.ckpt", trainer, hooks[::-1] if late else hooks)
    assert [(row["step"], row.get("train/loss", "")) for row in back.rows] == [("0", "5.0"), ("1", "4.0"), (1, "")]
    assert back.rows[-1]["other"] == 0.5, "Lightning writes it behind the checkpoint"
    assert len(trainer.loggers[0].experiment.read()) == 2
    assert loop["epoch_progress"]["current"] == {"ready": 1, "started": 1, "processed": 0}


@pytest.mark.parametrize(("file", "late"), [(None, False), (None, True), ("last", False)])
def test_metrics_begin_anew_where_no_checkpoint_is_found(file, late, tmp_path):
    trainer = trainer_of(tmp_path, restores_late=late)
    logged(trainer, [0, 1])
    assert goes_on(file, trainer, ["on_fit_start"])[0].rows == []
    assert not (tmp_path / "metrics.csv").exists()


def test_the_checkpoint_that_a_run_goes_on_from(tmp_path):
    own = last_checkpoint(tmp_path)
    assert checkpoint_to_resume(tmp_path, None) is None
    assert first_step_again(own) == first_step_again(None) == 0
    WholeFileIO().save_checkpoint({"global_step": 7}, own)
    assert checkpoint_to_resume(tmp_path, None) == str(own)
    assert checkpoint_to_resume(tmp_path, "other.ckpt") == "other.ckpt"
    assert first_step_again(own) == 6, "part of the checkpoint's own step is logged behind it"
    delete_checkpoints(tmp_path)
    assert checkpoint_to_resume(tmp_path, None) is None


@pytest.mark.parametrize("asked", [None, False, True])
def test_a_checkpoint_is_never_unpickled_whatever_a_strategy_asks(asked, mark, tmp_path, monkeypatch):  # noqa: F811
    # FSDP2 restores without a word on it, and torch then does what the environment says.
    monkeypatch.setenv("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", "1")
    file = Path(tmp_path / "last.ckpt")
    torch.save({"more": Bomb(mark)}, file)
    with pytest.raises(Exception, match="Weights only load failed"):
        WholeFileIO().load_checkpoint(file, weights_only=asked)
    assert not mark.exists()
