"""One SIGTERM, Ctrl-C or SIGUSR1 at any moment: where the process ends, its exit status, what it says, and that nothing is lost."""

import fcntl
import os
import signal
import subprocess
import sys
import time
from contextlib import contextmanager

import pytest
import torch
from rich.console import Console
from study_runs import fit, metrics_text, run_json, settings, weights
from test_generation import lively
from test_study import config_of, small, tree

from callbacks.retain_likelihood import RetainLikelihood
from unlearn_lightning import main, preemption
from unlearn_lightning.cli.environment import TRAINER_VERBS
from unlearn_lightning.inference import generation
from unlearn_lightning.modules import CausalLMModule
from unlearn_lightning.records import is_finished, locked, remove_left_overs, write_json, write_text
from unlearn_lightning.runs.measured import probe_keys
from unlearn_lightning.runs.run_recorder import RunRecorder
from unlearn_lightning.study import execution, slurm
from unlearn_lightning.study.live_report import LiveReport
from unlearn_lightning.study.local import Local
from unlearn_lightning.study.work import Work

CODES = {signal.SIGTERM: 143, signal.SIGINT: 130, signal.SIGUSR1: 75}


def send(number=signal.SIGTERM):
    os.kill(os.getpid(), number)


def at_call(monkeypatch, owner, name, call, number):
    """The signal comes in the n-th call of a function."""
    function, calls = getattr(owner, name), []

    def wrapped(*args, **kwargs):
        calls.append(1)
        if len(calls) == call:
            send(number)
        return function(*args, **kwargs)

    monkeypatch.setattr(owner, name, wrapped)


# Three examples are measured one at a time at steps 0, 2, 4 and 5. Where it comes, the signal, and the step of the checkpoint then.
MOMENTS = {
    "before the first step": ((RunRecorder, "on_fit_start", 1), signal.SIGTERM, None),
    "in the first measurement": ((RetainLikelihood, "predict", 2), signal.SIGINT, None),
    "in the middle of a step": ((CausalLMModule, "training_step", 3), signal.SIGTERM, 2),
    "in the middle of a step, from a cluster": ((CausalLMModule, "training_step", 3), signal.SIGUSR1, 2),
    "in a measurement": ((RetainLikelihood, "predict", 5), signal.SIGTERM, 2),
    "in the last measurement": ((RetainLikelihood, "predict", 11), signal.SIGINT, 3),
}


def probed(corpus, questions, folder):
    """5 steps of two micro-batches each, with a checkpoint at step 3 alone."""
    probe = {"class_path": "RetainLikelihood", "init_args": {"limit": 3, "every_n_steps": 2, "chunk_size": 1}}
    data = {"init_args": {"micro_batch_size": 4}}
    return settings(corpus, questions, folder, "NPO", data=data, trainer={"callbacks": [probe]}, checkpoint_every_n_steps=3)


def everything(folder):
    """What a run leaves behind, as text."""
    kept = sorted(folder.glob("records/*/[0-9]*.json"))
    return {"metrics.csv": metrics_text(folder), **{str(path.relative_to(folder)): path.read_text() for path in kept}}


@pytest.fixture(scope="module")
def straight(tmp_path_factory, corpus):
    place = tmp_path_factory.mktemp("straight")
    (place / "questions.jsonl").write_text(
        "".join(f'{{"prompt": "Who wrote {i}?", "response": "Ann{" and Bob" * (i % 3)}."}}\n' for i in range(19))
    )
    fit(probed(corpus, str(place / "questions.jsonl"), place / "run"))
    return place / "run"


@pytest.mark.parametrize("moment", MOMENTS)
def test_a_run_ends_where_nothing_is_lost_and_goes_on(moment, corpus, tmp_path, straight, monkeypatch, capsys):
    (owner, name, call), number, saved = MOMENTS[moment]
    folder = tmp_path / "run"
    config = probed(corpus, str(straight.parent / "questions.jsonl"), folder)
    with monkeypatch.context() as patch:
        alarms = []
        patch.setattr(preemption, "_end_in_time", lambda: alarms.append(1))
        at_call(patch, owner, name, call, number)
        assert preemption.stoppable(lambda: bool(fit(config)) - 1, "unlearn fit -c run.yaml") == CODES[number]
        assert bool(alarms) == (number is signal.SIGUSR1)
    said = capsys.readouterr().err
    assert "unlearn: stopped by " in said
    assert said.endswith("To go on: unlearn fit -c run.yaml\n")
    assert "Traceback" not in said
    assert run_json(folder)["status"] == "stopped"
    checkpoint = folder / "checkpoints" / "last.ckpt"
    assert (torch.load(checkpoint, weights_only=True)["global_step"] if checkpoint.exists() else None) == saved
    left = [folder / name for name in (".run.json.k3jx0_ab", ".metrics.csv.q", "records/retain/.000002.json.abcdefgh", ".writable-0f")]
    for path in left:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("half")

    fit(config)
    assert is_finished(folder)
    assert not [path for path in left if path.exists()]
    assert everything(folder) == everything(straight)
    for key, value in weights(straight).items():
        assert torch.equal(weights(folder)[key], value), key


def test_a_signal_behind_the_last_measurement_leaves_a_finished_run(corpus, tmp_path, straight, monkeypatch):
    config = probed(corpus, str(straight.parent / "questions.jsonl"), tmp_path / "run")
    at_call(monkeypatch, RunRecorder, "on_train_end", 1, signal.SIGTERM)
    assert preemption.stoppable(lambda: bool(fit(config)) - 1, "") == 0
    assert is_finished(tmp_path / "run")


def test_generation_ends_between_two_tokens(make_backbone, monkeypatch):
    net, tokens = lively(make_backbone), []
    forward = net.forward

    def counted(*args, **kwargs):
        tokens.append(1)
        if len(tokens) == 3:
            send()
        return forward(*args, **kwargs)

    monkeypatch.setattr(net, "forward", counted)

    def work():
        with preemption.held():
            generation.generate(net, make_backbone().load_tokenizer(), [[5, 6, 7]], 50)

    assert preemption.stoppable(work, "") == 143
    assert len(tokens) == 3


@pytest.mark.parametrize("verb", [*TRAINER_VERBS, *main.ROOMS])
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=lambda n: n.name)
def test_every_verb_ends_at_once_while_nothing_is_begun(verb, number, monkeypatch, capsys):
    """During imports, above all, which take seconds."""
    before = signal.getsignal(number)
    monkeypatch.setattr(main, "import_module", lambda *_: send(number))
    monkeypatch.setattr(main, "_trainer", lambda *_: send(number))
    assert main.main([verb, "a file"]) == CODES[number]
    assert capsys.readouterr().err.endswith(f"To go on: unlearn {verb} 'a file'\n")
    assert signal.getsignal(number) is before


def test_little_is_imported_before_a_signal_is_a_request():
    """What is imported before ends in a traceback when Ctrl-C comes."""
    code = "import sys, unlearn_lightning.main; print(sorted(name for name in sys.modules if name.startswith('unlearn_lightning')))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "['unlearn_lightning', 'unlearn_lightning.main', 'unlearn_lightning.preemption']"


def test_what_fails_because_of_the_signal_is_no_failure():
    def work():
        with preemption.held():
            send()
            raise RuntimeError("DataLoader worker (pid 7) is killed by signal: Terminated.")

    assert preemption.stoppable(work, "") == 143
    with pytest.raises(RuntimeError):
        preemption.stoppable(lambda: (_ for _ in ()).throw(RuntimeError), "")


@pytest.mark.parametrize(("rank", "status"), [("0", 75), ("1", 0)])
def test_processes_of_one_run_end_together_with_the_first_ones_status(rank, status, monkeypatch, capsys):
    """One that was not asked itself ends because another was; a further one's status would make Lightning kill the first."""
    monkeypatch.setenv("LOCAL_RANK", rank)
    monkeypatch.setattr(preemption, "end_with_parent", lambda: None)
    assert preemption.stoppable(lambda: exec("raise Stopped(75)", {"Stopped": preemption.Stopped}), "unlearn fit") == status
    said = "unlearn: stopped by a signal to another of its processes. To go on: unlearn fit\n"
    assert capsys.readouterr().err == (said if rank == "0" else "")


@contextmanager
def child(work):
    """A forked process that does the work; gives its id."""
    pid = os.fork()
    if not pid:
        try:
            work()
        finally:
            os._exit(0)
    yield pid
    with pytest.raises(ChildProcessError):
        os.waitpid(pid, 0)


@pytest.mark.parametrize(("after", "ended"), [(0.0, False), (1.5, True)], ids=["the same request", "a second one"])
def test_a_second_signal_ends_it_at_once(after, ended):
    def work():
        preemption.listen()
        with preemption.held():
            send()
            preemption._state.since -= after
            send()

    with child(work) as pid:
        status = os.waitpid(pid, 0)[1]
    assert (os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGTERM) == ended


def test_a_clusters_warning_is_followed_by_the_end_where_no_step_ends(monkeypatch):
    def work():
        preemption.GRACE = 1
        preemption.listen()
        send(signal.SIGUSR1)
        time.sleep(30)

    with child(work) as pid:
        assert os.WTERMSIG(os.waitpid(pid, 0)[1]) == signal.SIGALRM


def test_a_helper_that_was_forked_outlives_a_signal_to_all_processes():
    def work():
        preemption.listen()
        with child(send) as pid:
            os._exit(os.waitpid(pid, 0)[1])

    with child(work) as pid:
        assert os.waitpid(pid, 0)[1] == 0


def test_what_is_ignored_stays_ignored(monkeypatch):
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        assert preemption.stoppable(lambda: send(signal.SIGINT) or 0, "") == 0
    finally:
        signal.signal(signal.SIGINT, before)


def test_a_study_ends_between_two_runs(corpus, questions, tmp_path, monkeypatch):
    """The signal comes while a run is ending, where nothing but the study can notice it."""
    done = []

    def execute(job, tell):
        with preemption.held():
            done.append(job.name)
            measured = {name: {"key": key, "steps": []} for name, key in probe_keys(job.config).items()}
            write_json(job.folder / "run.json", {"status": "finished", "kind": "stage", "steps": 1, "probes": measured})
            if len(done) == 2:
                send()

    monkeypatch.setattr(execution, "execute", execute)
    written = small(corpus, questions)
    work = Work(config_of(written), tree(written, tmp_path / "store"), tmp_path / "study", Console(quiet=True))
    write_text(tmp_path / "study" / ".study.json.abc", "half")
    assert preemption.stoppable(lambda: not Local(jobs=1).launch(work), "") == 143
    assert len(done) == len(work.done) == 2
    assert not (tmp_path / "study" / ".study.json.abc").exists()


def test_left_overs_are_removed_and_nothing_else(tmp_path):
    kept = [tmp_path / name for name in (".gitignore", ".env.local", ".run.json", "a.json.abcdefgh", ".ipynb_checkpoints/x")]
    for path in (*kept, tmp_path / ".study.yaml.0a_b1c2d", tmp_path / ".live.json.abcdefgh"):
        write_text(path, "")
    with (tmp_path / ".live.json.abcdefgh").open() as live:
        fcntl.flock(live, fcntl.LOCK_SH)
        remove_left_overs(tmp_path)
    assert sorted(path for path in tmp_path.rglob("*") if path.is_file()) == sorted([*kept, tmp_path / ".live.json.abcdefgh"])


def test_the_end_of_a_study_does_not_wait_for_a_page_that_is_being_made(tmp_path):
    page = LiveReport(tmp_path, share=1)
    (tmp_path / "study.json").write_text('{"format": 1, "name": "s", "runs": []}')
    with locked(tmp_path / "report"):
        page.refresh(finished=1)
        began = time.monotonic()
        page.close()
    assert time.monotonic() - began < 60, "it waits for the lock, and would for ever"


# What SLURM's wrapper does with each end: 1 where the job goes back into the queue.
ENDS = {143: 1, 130: 1, 75: 1, 137: 1, 0: 0, slurm.FAILED: 0, slurm.TOO_EARLY: 0}


@pytest.mark.parametrize("code", ENDS)
@pytest.mark.parametrize("state", ["RUNNING", "CANCELLED"])
def test_a_cluster_puts_back_what_was_stopped_and_not_what_was_cancelled(code, state, tmp_path):
    for name, text in {
        "srun": f"exit {code}",
        "scontrol": f'[ "$1" = requeue ] && echo requeued && exit 1; echo "JobState={state} Restarts=0 "',
    }.items():
        (tmp_path / name).write_text(f"#!/bin/bash\n{text}\n")
        (tmp_path / name).chmod(0o755)
    script = slurm.RUN_SCRIPT.format(jobs="job.json", retries=2, setup="", python="true", failed=70, too_early=71, cpus="")
    environment = {"PATH": f"{tmp_path}:{os.environ['PATH']}", "SLURM_ARRAY_JOB_ID": "1", "SLURM_ARRAY_TASK_ID": "0"}
    done = subprocess.run(["bash", "-c", script], env=environment, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == code
    assert done.stdout.count("requeued") == (ENDS[code] if state == "RUNNING" else 0)
