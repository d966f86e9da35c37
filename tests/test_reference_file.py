"""Reference log-likelihoods that runs from one start share, safely when they run at once or are killed."""

import os
import signal
import subprocess
import sys
import threading
import time

import pytest
import torch
from study_runs import fit, settings, weights

from unlearn_lightning.modules.reference_file import ReferenceFile
from unlearn_lightning.modules.unlearning import Unlearning

LORA = {"rank": 4, "alpha": 8}


def npo(corpus, questions, folder, beta=0.5, lr=3e-3, **backbone):
    optimizer = {"class_path": "torch.optim.AdamW", "init_args": {"lr": lr, "weight_decay": 0.0}}
    init = {"beta": beta, "cache_reference": True, "optimizer": optimizer, "backbone": {"lora": LORA, **backbone}}
    return settings(corpus, questions, folder, "NPO", model={"init_args": init})


def test_runs_from_one_start_compute_the_reference_once_and_end_as_if_alone(corpus, questions, tmp_path, monkeypatch):
    alone = tmp_path / "elsewhere" / "run"
    fit(npo(corpus, questions, alone, beta=0.1, lr=1e-3))
    fit(npo(corpus, questions, tmp_path / "runs" / "first"))
    (file,) = (tmp_path / "runs" / ".references").glob("*.safetensors")
    written = file.stat().st_mtime_ns

    def unwanted(self, parts):
        raise AssertionError("the reference was computed again")

    with monkeypatch.context() as patch:
        patch.setattr(Unlearning, "_compute_reference", unwanted)
        shared = tmp_path / "runs" / "second"
        fit(npo(corpus, questions, shared, beta=0.1, lr=1e-3))
        for name, value in weights(alone).items():
            assert torch.equal(weights(shared)[name], value)
        # Another start, or other settings of its forward pass, is another reference.
        with pytest.raises(AssertionError, match="computed again"):
            fit(npo(corpus, questions, tmp_path / "runs" / "third", seed=9))
        with pytest.raises(AssertionError, match="computed again"):
            fit(npo(corpus, questions, tmp_path / "runs" / "fourth", dtype="bfloat16"))
    assert file.stat().st_mtime_ns == written


def test_a_damaged_or_foreign_file_is_computed_again(tmp_path):
    file, values = ReferenceFile(tmp_path / "a.safetensors"), {7: -1.0, -3: -2.0, 2**62: -3.0}
    file.write(values)
    assert file.read() == values
    further = {**values, 11: -4.0}
    assert file.load_or(lambda: further, further.keys()) == further, "of other examples"
    assert file.load_or(dict, {7}) == {7: -1.0}, "what another objective adds takes nothing away"
    file.path.write_bytes(file.path.read_bytes()[:-5])
    assert file.load_or(lambda: values, values.keys()) == values
    assert file.read() == values, "it was not repaired"
    assert [p.name for p in tmp_path.glob("*.safetensors*")] == ["a.safetensors"]


def test_runs_at_once_wait_for_the_first(tmp_path):
    computed, found = [], []

    def compute():
        computed.append(1)
        time.sleep(0.2)
        return {1: -1.0, 2: -2.0}

    threads = [threading.Thread(target=lambda: found.append(ReferenceFile(tmp_path / "a").load_or(compute, {1, 2}))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=30)
    assert len(computed) == 1
    assert found == [{1: -1.0, 2: -2.0}] * 4


HOLDER = "import sys, time; from pathlib import Path; from unlearn_lightning.records import locked\nwith locked(Path(sys.argv[1])): print(1, flush=True); time.sleep(60)"  # noqa: E501


def test_a_killed_run_blocks_nobody(tmp_path):
    holder = subprocess.Popen([sys.executable, "-c", HOLDER, str(tmp_path / "a")], stdout=subprocess.PIPE)
    assert holder.stdout.readline() == b"1\n"
    os.kill(holder.pid, signal.SIGKILL)
    holder.wait()
    assert ReferenceFile(tmp_path / "a").load_or(lambda: {1: -1.0}, {1}) == {1: -1.0}
