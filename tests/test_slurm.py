"""A study on a real SLURM on this machine (scripts/slurm_here): killed jobs, a lost node, a submitter that is gone; and the queue."""

import inspect
import json
import multiprocessing
import os
import shutil
import subprocess
import time
from pathlib import Path

import psutil
import pytest
import torch
import yaml
from study_runs import weights
from test_study import config_of, small, tree

from unlearn_lightning.main import main
from unlearn_lightning.records import read_run, read_study, write_json
from unlearn_lightning.study import one_run
from unlearn_lightning.study.parser import parser
from unlearn_lightning.study.run_spec import RunSpec, write_spec
from unlearn_lightning.study.slurm import Slurm
from unlearn_lightning.study.slurm_queue import queue, slurm
from unlearn_lightning.study.state import study_states
from unlearn_lightning.study.work import Work

HERE = Path(__file__).parents[1] / "scripts" / "slurm_here"
MISSING = [p for p in ("munged", "slurmctld", "slurmd", "sbatch") if shutil.which(p, path=f"{os.environ['PATH']}:/usr/sbin") is None]
needs_slurm = pytest.mark.skipif(bool(MISSING), reason=f"no {', '.join(MISSING)}; `apt-get install munge slurmctld slurmd slurm-client`")


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    """A SLURM with two nodes; gives the function that calls its script. It ends with this process, also when that is killed."""
    folder = tmp_path_factory.mktemp("slurm") / "here"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SLURM_HERE", str(folder))

        def call(*words):
            subprocess.run([HERE, *words], check=True, stdout=subprocess.DEVNULL, timeout=60)

        call("start", "--while", str(os.getpid()))
        patch.setenv("SLURM_CONF", str(folder / "slurm.conf"))
        # The nodes' names are no host names.
        patch.setenv("MASTER_ADDR", "127.0.0.1")
        yield call
        patch.delenv("SLURM_CONF")
        call("stop")


def until(condition, seconds=200):
    """Waits; these tests are mostly waiting, and leave the cores to others."""
    end = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < end, slurm("squeue", "--array", "--long")
        time.sleep(0.05)
    return found


def tiny(corpus, questions):
    """inst, then safety, then two objectives: four runs, the last two siblings."""
    settings = small(
        corpus, questions, name="tiny", order=["inst"], positions=[2], base=None, backbone={"lora": {"rank": 2, "alpha": 4}},
        common={"checkpoint_every_n_steps": 1}, fine_tuning={"trainer": {"max_epochs": 60}},
    )  # fmt: skip
    settings["stages"].pop("math")
    return settings


def described(folder):
    """Run name -> its folder, of the study in runs/tiny."""
    return {run["name"]: folder / run["folder"] for run in read_study(folder)["runs"]}


def process_of(name, study):
    """The Python that executes a run of the study in a folder, or None; other studies may run beside these tests."""
    job = str(study.absolute() / "jobs" / f"{name.replace('/', '-')}.json")
    for process in psutil.process_iter(["cmdline"]):
        words = process.info["cmdline"] or [""]
        if "python" in Path(words[0]).name and words[-1] == job:
            return process
    return None


@needs_slurm
@pytest.mark.timeout(900)
def test_killed_jobs_a_lost_node_and_a_submitter_that_is_gone_end_with_the_local_result(cluster, corpus, questions, tmp_path, monkeypatch):
    local, remote = tmp_path / "local", tmp_path / "remote"
    for place in (local, remote):
        place.mkdir()
        (place / "tiny.yaml").write_text(yaml.safe_dump(tiny(corpus, questions)))
    monkeypatch.chdir(local)
    assert main(["study", "tiny.yaml", "--jobs", "1"]) == 0

    # One objective trains on two nodes; devices are no part of a key.
    monkeypatch.chdir(remote)
    settings = yaml.safe_load(Path("tiny.yaml").read_text())
    settings["objectives"]["npo"] |= {"trainer": {"num_nodes": 2, "strategy": "ddp"}, "data": {"init_args": {"micro_batch_size": 5}}}
    Path("tiny.yaml").write_text(yaml.safe_dump({**settings, "launcher": "slurm"}))
    # sbatch takes its time, so that the submitter can be killed when one job is in the queue and it does not know that yet.
    slow = tmp_path / "slow"
    slow.mkdir()
    (slow / "sbatch").write_text(f'#!/bin/sh\n{shutil.which("sbatch")} "$@"\nsleep 3\n')
    (slow / "sbatch").chmod(0o755)
    with monkeypatch.context() as patch:
        patch.setenv("PATH", f"{slow}:{os.environ['PATH']}")
        submitter = multiprocessing.get_context("fork").Process(target=main, args=(["study", "tiny.yaml"],))
        submitter.start()
        until(queue)
        submitter.kill()
        submitter.join()
    assert main(["study", "tiny.yaml"]) == 0
    runs = described(Path("runs/tiny"))
    assert len(queue()) == len(runs) == 4, "no run is in the queue twice"

    # The window is short, as the run has its checkpoints only while it trains: what is ended then is looked for before.
    process = until(lambda: process_of("seed0/inst", Path("runs/tiny")))
    until(lambda: (runs["seed0/inst"] / "checkpoints/last.ckpt").exists())
    process.kill()
    until(lambda: process_of("seed0/inst-safety", Path("runs/tiny")))
    (task,) = (task for task in queue() if task.state == "RUNNING")
    node = slurm("squeue", "--noheader", f"--job={task.id}", "--format=%N").strip()
    until(lambda: (runs["seed0/inst-safety"] / "checkpoints/last.ckpt").exists())
    cluster("lose", node)
    until(lambda: slurm("sinfo", "--noheader", f"--nodes={node}", "--format=%t").startswith("down"))
    cluster("node", node)
    until(lambda: not slurm("squeue", "--noheader"))

    assert {name: read_run(folder)["status"] for name, folder in runs.items()} == dict.fromkeys(runs, "finished")
    for name in ("inst", "inst-safety"):
        log = (runs[f"seed0/{name}"] / "log.txt").read_text()
        assert log.count("Restor") >= 1, f"{name} began again instead of going on"
    assert "MEMBER: 2/2" in (runs["seed0/p2/npo"] / "log.txt").read_text()
    assert Path("runs/tiny/report/index.html").is_file()
    for name, folder in described(local / "runs/tiny").items():
        assert runs[name].name == folder.name, "one key"
        expected, found = weights(folder), weights(runs[name])
        for key, value in expected.items():
            if name == "seed0/p2/npo":
                torch.testing.assert_close(found[key], value, atol=1e-6, rtol=1e-5)
            else:
                assert torch.equal(found[key], value), (name, key)
        # Measured in another process, with its own memory alignment: equal to rounding.
        for record in folder.glob("records/forget/*.json"):
            mine, theirs = (json.loads((f / record.relative_to(folder)).read_text())["examples"] for f in (folder, runs[name]))
            assert [e["id"] for e in mine] == [e["id"] for e in theirs]
            assert [e["label_log_lik"] for e in mine] == pytest.approx([e["label_log_lik"] for e in theirs], abs=1e-4)
    assert main(["study", "tiny.yaml"]) == 0
    assert not queue(), "everything is finished"


@needs_slurm
def test_the_tree_in_the_queue(cluster, corpus, questions, tmp_path, monkeypatch, capsys):
    """Held, so that nothing runs: arrays, what they wait for, a second submission, failures, and status."""
    monkeypatch.chdir(tmp_path)
    Path("held.yaml").write_text(yaml.safe_dump(small(corpus, questions, name="held", seeds=[0, 1])))
    Path("slurm.yaml").write_text("launcher: {class_path: slurm, init_args: {sbatch: [--hold], setup: 'true', time: '1:00:00'}}\n")
    command = ["study", "held.yaml", "-c", "slurm.yaml"]
    assert main(command) == 0
    said = capsys.readouterr().out
    assert "Submitted: 30 runs." in said
    runs = {run.name: run for run in study_states(Path("runs/held"), queue())}
    assert {run.state for run in runs.values()} == {"queued"}
    # Equal siblings are one array: the base of each seed, what starts from one base, and the objectives of one path.
    arrays = {name: run.task.array for name, run in runs.items()}
    assert arrays["seed0/base"] == arrays["seed1/base"]
    assert arrays["seed0/inst"] == arrays["seed0/safety"] != arrays["seed1/inst"]
    assert arrays["seed0/p2/ga"] == arrays["seed0/p2/npo"] != arrays["seed0/p3/ga"]
    waits = dict(line.split("|") for line in slurm("squeue", "--noheader", "--array", "--format=%i|%E").splitlines())
    after = waits[runs["seed0/p2/ga"].task.id]
    assert f"afterok:{runs['seed0/inst-safety-math'].task.id}(" in after, after
    assert f"afterany:{runs['seed0/inst-math'].task.id}(" in after, after

    assert main(command) == 0
    assert "In the queue already: 30." in capsys.readouterr().out
    assert len(queue()) == 30
    assert main(["status", "runs/held"]) == 0
    assert f"seed0/p2/npo  queued  job {runs['seed0/p2/npo'].task.id} pending" in " ".join(capsys.readouterr().out.split(" "))

    # A run failed: what starts from it waits, the rest goes on. Cancelled jobs are submitted again.
    slurm("scancel", "--user", os.environ.get("USER") or os.popen("id -un").read().strip())
    until(lambda: not slurm("squeue", "--noheader"))
    write_json(runs["seed0/inst"].folder / "run.json", {"status": "failed", "error": "ValueError: no"})
    assert main(command) == 1
    said = capsys.readouterr().out
    assert "Left out, add --retry-failed: seed0/inst (ValueError: no)" in said
    assert "Left out, add --retry-failed: seed0/p3/npo (waits for a run that failed)" in said
    states = {run.name: run.state for run in study_states(Path("runs/held"), queue())}
    assert (states["seed0/inst"], states["seed0/inst-safety"]) == ("failed", "waiting")
    assert (states["seed0/safety"], states["seed0/p1/ga"], states["seed1/inst"]) == ("queued", "queued", "queued")
    assert main([*command, "--retry-failed"]) == 0
    assert {run.state for run in study_states(Path("runs/held"), queue())} == {"queued"}
    slurm("scancel", *{task.array for task in queue()})


def test_resources_come_from_the_trainer_and_the_launcher(corpus, questions, tmp_path):
    gpu = small(corpus, questions, common={"trainer": {"accelerator": "gpu", "devices": 2, "num_nodes": 3}})
    launcher = Slurm(partition="big", account="us", gpus=4, cpus=6, memory="64G", time="8:00:00", sbatch=("--constraint=a100",))
    run = tree(gpu, tmp_path)[0]
    lines = launcher.header("name", "out", launcher._resources(run, threads=None), [])
    for said in ("partition=big", "account=us", "nodes=3", "ntasks-per-node=2", "gpus-per-node=4", "cpus-per-task=6", "mem=64G",
                 "time=8:00:00", "constraint=a100"):  # fmt: skip
        assert f"#SBATCH --{said}" in lines
    with pytest.raises(ValueError, match=r"seed0/base trains on a GPU, and launcher\.gpus is 0"):
        Slurm()._resources(run, None)
    with pytest.raises(ValueError, match="asks for 2 GPUs, and 1 can be seen"):
        Slurm(gpus=1)._resources(run, None)
    for bad in ({"max_retries": -1}, {"cpus": 0}, {"sbatch": ("qos=long",)}):
        with pytest.raises(ValueError, match=r"launcher\."):
            Slurm(**bad)


def test_without_slurm_it_says_so(corpus, questions, tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    runs = tree(small(corpus, questions), tmp_path / "store")
    with pytest.raises(ValueError, match="needs sbatch and squeue, which are not on this machine"):
        Slurm().launch(Work(config_of(small(corpus, questions)), runs, tmp_path / "study", None))


def test_a_run_whose_parent_was_cancelled_waits_and_is_no_failure(tmp_path, capsys):
    base, child = tmp_path / "store" / "base", tmp_path / "store" / "inst"
    write_spec(tmp_path / "job.json", RunSpec("1", "seed0/inst", "stage", child, {}, {}, parents=(base,)))
    write_json(base / "run.json", {"status": "running"})
    assert one_run.main([str(tmp_path / "job.json")]) == one_run.TOO_EARLY
    assert f"seed0/inst starts from {base}, which is not finished" in capsys.readouterr().err
    assert not child.exists(), "neither a failure nor anything else is written"


@pytest.mark.parametrize("file", sorted((HERE.parents[1] / "configs" / "launchers").glob("*.yaml")), ids=lambda f: f.stem)
def test_launcher_files_go_beside_a_study(file):
    (command,) = [line for line in file.read_text().splitlines() if line.startswith("#") and f"-c configs/launchers/{file.name}" in line]
    words = ["--config", str(file.parents[1] / "studies" / "demo.yaml"), "-c", str(file)]
    assert " study configs/studies/" in command
    launcher = parser().instantiate(parser().parse_args(words)).launcher
    stated = yaml.safe_load(file.read_text())["launcher"]
    assert type(launcher).__name__.lower() == stated["class_path"]
    assert set(stated["init_args"]) == set(inspect.signature(type(launcher).__init__).parameters) - {"self"}, "every setting is stated"
