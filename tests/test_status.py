"""`unlearn status`: what it says of a study that is planned, running, killed, failed and finished."""

import os
import subprocess
import sys

import pytest
import yaml
from forked import Forked, until
from study_runs import settings
from test_study import config_of, small, tree

from unlearn_lightning.main import main
from unlearn_lightning.records import locked, write_json
from unlearn_lightning.study.state import study_states
from unlearn_lightning.study.work import write_study


@pytest.fixture(name="study")
def planned(corpus, questions, tmp_path):
    """A study of which nothing has run: its folder, and the run folders by name."""
    described = small(corpus, questions)
    runs = tree(described, tmp_path / "store")
    write_study(config_of(described), runs, tmp_path / "study")
    return tmp_path / "study", {run.name: run.folder for run in runs}


def states(folder):
    return {run.name: (run.state, run.step, run.steps, run.why) for run in study_states(folder)}


def write_run(folder, status, **more):
    write_json(folder / "run.json", {"status": status, "kind": "stage", **more})


def test_each_state_is_told_from_the_files(study):
    folder, place = study
    assert states(folder)["seed0/base"] == ("ready", None, None, "")
    assert states(folder)["seed0/inst"] == ("waiting", None, None, "seed0/base")
    write_run(place["seed0/base"], "finished", steps=2)
    write_run(place["seed0/inst"], "running")
    write_json(place["seed0/inst"] / "progress.json", {"step": 1, "steps": 2})
    write_run(place["seed0/safety"], "failed", error="ValueError: no")
    with locked(place["seed0/inst"]):
        assert states(folder)["seed0/inst"] == ("running", 1, 2, "")
    found = states(folder)
    assert found["seed0/base"] == ("finished", 2, 2, "")
    assert found["seed0/inst"] == ("stopped", 1, 2, "")
    assert found["seed0/safety"] == ("failed", None, None, "ValueError: no")
    assert found["seed0/safety-inst"] == ("waiting", None, None, "seed0/safety")
    # Tried again, it is running whatever was written before.
    with locked(place["seed0/safety"]):
        assert states(folder)["seed0/safety"][0] == "running"


def test_the_command_prints_the_tree_with_its_counts(study, capsys):
    folder, place = study
    write_run(place["seed0/base"], "finished", steps=2)
    write_run(place["seed0/inst"], "failed", error="ValueError: [b]no[/]")
    assert main(["status", str(folder)]) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "1 finished, 1 failed, 1 ready, 12 waiting, of 15 runs" in said
    assert "── seed0/base finished 2 steps" in said
    assert "── seed0/inst failed ValueError: [b]no[/]" in said
    assert main(["status", str(folder / "nowhere")]) == 2
    assert "There is no folder" in capsys.readouterr().err


def test_it_does_not_wait_for_torch(study):
    code = "import sys; from unlearn_lightning.main import main; main(sys.argv[1:]); print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code, "status", str(study[0])], capture_output=True, text=True, check=True, env=os.environ)
    assert done.stdout.endswith("False\n")


def test_a_real_run_says_how_far_it_is_until_it_is_killed(corpus, questions, tmp_path):
    config = settings(corpus, questions, tmp_path / "run", trainer={"max_steps": 4000})
    (tmp_path / "run.yaml").write_text(yaml.safe_dump(config))
    entry = {"key": "a", "name": "long", "kind": "stage", "folder": "../run", "parents": []}
    write_json(tmp_path / "study" / "study.json", {"runs": [entry]})
    process = Forked(lambda: main(["fit", "-c", str(tmp_path / "run.yaml")]))
    try:
        until((tmp_path / "run/progress.json").exists, process)
        (run,) = study_states(tmp_path / "study")
        assert (run.state, run.steps) == ("running", 4000)
        assert run.step >= 1
    finally:
        process.kill()
        process.wait()
    (run,) = study_states(tmp_path / "study")
    assert (run.state, run.steps) == ("stopped", 4000)


def run_in(folder, key, name, **more):
    write_json(folder / name / "run.json", {"format": 1, "status": "finished", "kind": "unlearn", "key": key, "steps": 4, **more})


@pytest.mark.parametrize("kind", ["unlearn", "stage", "measured"])
def test_a_single_run_of_any_kind_has_a_status(tmp_path, capsys, kind):
    run_in(tmp_path, "a", "mine", kind=kind)
    assert main(["status", str(tmp_path / "mine")]) == 0
    assert capsys.readouterr().out.split()[-5:] == ["└──", "mine", "finished", "4", "steps"]


def test_a_folder_of_runs_and_studies_has_a_status_in_the_order_of_numbers(tmp_path, capsys):
    for key, name in enumerate(["lr1e-3", "lr3e-5", "lr1e-4", "seed10", "seed2"]):
        run_in(tmp_path, str(key), name)
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "run.json").write_text("{")
    entry = {"key": "0", "name": "seed0/p1/npo", "kind": "unlearn", "folder": "../lr1e-3", "parents": []}
    write_json(tmp_path / "study" / "study.json", {"runs": [entry, {**entry, "key": "x", "name": "seed1/base", "folder": "../store/base"}]})
    found = states(tmp_path)
    assert list(found) == ["broken", "lr3e-5", "lr1e-4", "lr1e-3", "seed2", "seed10", "study/seed1/base"]
    assert [state for state, *_ in found.values()] == ["failed", *["finished"] * 5, "ready"]
    assert main(["watch", str(tmp_path), "--once"]) == 1
    assert "1 failed, 1 ready, of 7 runs" in " ".join(capsys.readouterr().out.split())
    assert main(["status", str(tmp_path), "--verify"]) == 1
