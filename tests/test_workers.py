"""Worker processes and the GPUs they are given: the pool on paper, real processes, and a real study on named devices."""

import os
import time
from concurrent.futures.process import BrokenProcessPool

import pytest
from rich.console import Console
from test_study import config_of, small, tree

from unlearn_lightning.study.local import Local, default_jobs
from unlearn_lightning.study.work import Work
from unlearn_lightning.study.workers import DevicePool, Workers, devices_of, named_devices

SEEN = """
import os
import sys
from pathlib import Path

import lightning.pytorch as pl


class Seen(pl.Callback):
    def on_train_start(self, trainer, pl_module):
        Path(trainer.default_root_dir, "seen").write_text(os.environ["CUDA_VISIBLE_DEVICES"])
        print("to the log", file=sys.stderr)
"""


def test_slots_are_taken_once_and_come_back_in_order():
    pool = DevicePool(["4", "5", "7"])
    assert (pool.take(2), pool.take(1), pool.take(0), pool.free) == (["4", "5"], ["7"], [], [])
    pool.give_back(["7"])
    pool.give_back(["4", "5"])
    assert pool.free == ["4", "5", "7"]


def test_devices_keep_the_names_that_they_were_given():
    assert named_devices(3, None) == ["0", "1", "2"]
    assert named_devices(2, "6, 3") == ["6", "3"]
    assert named_devices(1, "GPU-8f2e,7") == ["GPU-8f2e"], "CUDA stops at the first name that it does not know"
    assert named_devices(0, "") == named_devices(0, "-1") == []


def trainer(devices, accelerator="auto"):
    return {"accelerator": accelerator, "devices": devices}


def test_a_run_takes_as_many_devices_as_its_trainer_asks_for():
    assert [devices_of(trainer(d), there=4) for d in (1, "2", "auto", -1)] == [1, 2, 1, 4]
    assert devices_of(trainer(2, "cpu"), there=4) == devices_of(trainer(2), there=0) == 0
    with pytest.raises(ValueError, match="asks for 5 GPUs, and 4 can be seen"):
        devices_of(trainer(5), there=4)
    with pytest.raises(ValueError, match="names the GPUs"):
        devices_of(trainer([0, 1]), there=4)


def drained(workers, count):
    done, deadline = [], time.monotonic() + 60
    while len(done) < count and time.monotonic() < deadline:
        done += workers.finished(timeout=0.2)
    return done


def test_each_process_sees_its_own_devices_before_torch_is_loaded(monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2,3,5")
    with Workers(jobs=3, devices=["2", "3", "5"]) as workers:
        said = "(__import__('os').environ['CUDA_VISIBLE_DEVICES'], 'torch' in __import__('sys').modules)"
        futures = [workers.submit(count, eval, said) for count in (2, 1, 0)]
        assert not workers.room(0), "three jobs run"
        drained(workers, 3)
        assert [f.result() for f in futures] == [("2,3", False), ("5", False), ("2,3,5", False)]
        assert workers.devices.free == ["2", "3", "5"]
        assert workers.room(3)
        assert not workers.room(4)


def test_a_process_that_dies_gives_its_devices_back_and_its_neighbour_goes_on():
    with Workers(jobs=2, devices=["0", "1"]) as workers:
        dying, living = workers.submit(1, os._exit, 9), workers.submit(1, eval, "__import__('time').sleep(0.5) or 'whole'")
        drained(workers, 2)
        assert isinstance(dying.exception(), BrokenProcessPool)
        assert living.result() == "whole"
        again = workers.submit(2, os.getenv, "CUDA_VISIBLE_DEVICES")
        drained(workers, 1)
        assert again.result() == "0,1"


def test_runs_of_a_study_have_a_device_each(corpus, questions, tmp_path, monkeypatch):
    """The devices are made up, and nothing here uses them: what is measured is what each run was given."""
    (tmp_path / "seen_devices.py").write_text(SEEN)
    monkeypatch.syspath_prepend(tmp_path)
    own = {"accelerator": "auto", "callbacks": [{"class_path": "seen_devices.Seen"}]}

    def run(devices):
        settings = small(corpus, questions, seeds=[0, 1], base={"trainer": {**own, "devices": devices}})
        runs = tree(settings, tmp_path / "store")
        bases = [run for run in runs if run.name.endswith("/base")]
        work = Work(config_of(settings), runs, tmp_path / "study", Console(quiet=True), bases)
        assert default_jobs(work, devices=5) == 5
        Local(jobs=2, devices=("6", "3")).launch(work)
        work.check()
        return bases

    with pytest.raises(ValueError, match="asks for 3 GPUs, and 2 can be seen"):
        run(devices=3)
    assert not (tmp_path / "study").exists(), "bad input is refused before work starts"
    bases = run(devices=1)
    assert [(base.folder / "seen").read_text() for base in bases] == ["6", "3"]
    for base in bases:
        log = (base.folder / "log.txt").read_text()
        assert "to the log" in log
        assert "GPU available" in log, "Lightning's messages belong there too"
