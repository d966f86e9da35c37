"""`kill -9` at the worst places: whatever it was in the middle of, the same command ends as if nothing had happened."""

import io
import os
import shutil
import signal

import pytest
import torch
from study_runs import fit, metrics_text, run_json, settings, weights
from test_stopped_runs import Stop, StopAt

from unlearn_lightning import records
from unlearn_lightning.cli import lightning_cli
from unlearn_lightning.records import is_finished
from unlearn_lightning.runs import run_recorder
from unlearn_lightning.runs.metrics_file import MetricsFile


def die():
    os.kill(os.getpid(), signal.SIGKILL)


def at_call(number, function, before=die):
    """The function, whose n-th call is the process's end."""
    calls = []

    def wrapped(*args, **kwargs):
        calls.append(args)
        if len(calls) == number:
            before()
        return function(*args, **kwargs)

    return wrapped


def killed(work):
    """Does the work in a process that must die of it."""
    child = os.fork()
    if not child:
        try:
            work()
        finally:
            os._exit(0)
    assert os.WIFSIGNALED(os.waitpid(child, 0)[1]), "the place was not reached"


def in_a_records_write():
    replace = os.replace

    def wrapped(source, target):
        if "000004.json" in str(target):
            die()
        replace(source, target)

    records.os.replace = wrapped


def in_a_checkpoints_write():
    save, calls = torch.save, []

    def half(checkpoint, file):
        calls.append(1)
        whole = io.BytesIO()
        save(checkpoint, whole)
        file.write(whole.getvalue()[: None if len(calls) < 4 else len(whole.getvalue()) // 2])
        file.flush()
        if len(calls) == 4:
            die()

    torch.save = half


def in_the_results_write():
    save = run_recorder.save_result

    def half(net, tokenizer, folder, write):
        save(net, tokenizer, folder, write)
        file = folder / "model" / "model.safetensors"
        os.truncate(file, file.stat().st_size // 2)
        die()

    run_recorder.save_result = half


def in_a_metrics_write():
    save, calls = MetricsFile.save, []

    def half(self):
        calls.append(1)
        save(self)
        if len(calls) == 4:
            os.truncate(self.path, self.path.stat().st_size - 5)
            die()

    MetricsFile.save = half


def before_it_is_called_finished():
    # The first write says `running`, the second `finished`.
    write = run_recorder.RunRecorder._write_run

    def wrapped(self, status, **facts):
        if status == "finished":
            die()
        write(self, status, **facts)

    run_recorder.RunRecorder._write_run = wrapped


def behind_the_last_write():
    shutil.rmtree = at_call(1, shutil.rmtree)


PLACES = (
    in_a_records_write, in_a_checkpoints_write, in_the_results_write, in_a_metrics_write, before_it_is_called_finished,
    behind_the_last_write,
)  # fmt: skip


def whole(corpus, questions, folder, **more):
    probe = {"class_path": "RetainLikelihood", "init_args": {"limit": 3, "every_n_steps": 2}}
    dropout = {"init_args": {"backbone": {"seed": 5}}}
    return settings(corpus, questions, folder, "NPO", model=dropout, trainer={"callbacks": [probe]}, checkpoint_every_n_steps=1, **more)


def everything(folder):
    """What a run leaves behind, as text."""
    kept = sorted(folder.glob("records/*/[0-9]*.json"))
    return {"metrics.csv": metrics_text(folder), **{str(path.relative_to(folder)): path.read_text() for path in kept}}


@pytest.fixture(scope="module")
def straight(tmp_path_factory):
    return tmp_path_factory.mktemp("straight") / "run"


@pytest.mark.parametrize("place", PLACES, ids=lambda place: place.__name__)
def test_the_same_command_ends_as_if_nothing_had_happened(place, corpus, tmp_path, straight):
    questions = straight.parent / "questions.jsonl"
    if not straight.exists():
        questions.write_text("".join(f'{{"prompt": "Who wrote {i}?", "response": "Ann{" and Bob" * (i % 3)}."}}\n' for i in range(19)))
        fit(whole(corpus, str(questions), straight))
    config = whole(corpus, str(questions), tmp_path / "run")

    def work():
        place()
        fit(config)

    killed(work)
    assert is_finished(tmp_path / "run") == (place is behind_the_last_write)
    fit(config)
    assert is_finished(tmp_path / "run")
    assert everything(tmp_path / "run") == everything(straight)
    for key, value in weights(straight).items():
        assert torch.equal(weights(tmp_path / "run")[key], value), key
    assert run_json(tmp_path / "run")["tokens"] == run_json(straight)["tokens"]
    assert not (tmp_path / "run" / "checkpoints").exists()


@pytest.mark.parametrize(("before", "after", "step"), [(2, 8, 2), (8, 1, 3), (1, 4, 4)])
def test_a_run_goes_on_with_other_micro_batches(before, after, step, corpus, questions, tmp_path):
    """They decide nothing, and so may change while a run is stopped: within an epoch, at its end, and in the next."""

    def config(name, micro):
        return settings(corpus, questions, tmp_path / name, data={"init_args": {"micro_batch_size": micro}}, checkpoint_every_n_steps=1)

    fit(config("straight", 8))
    with pytest.raises(Stop):
        lightning_cli.run({"subcommand": "fit", "fit": config("run", before)}, callbacks=[StopAt(step)])
    assert fit(config("run", after)).trainer.global_step == 5
    for key, value in weights(tmp_path / "straight").items():
        torch.testing.assert_close(weights(tmp_path / "run")[key], value, atol=1e-5, rtol=0)
    assert run_json(tmp_path / "run")["tokens"] == run_json(tmp_path / "straight")["tokens"]
