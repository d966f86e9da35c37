"""What W&B gets: a real offline run, read back with W&B's own tool."""

import csv
import json
import shutil
import subprocess
import sys
from contextlib import nullcontext
from pathlib import Path

import pytest
import wandb
from rich.console import Console
from study_runs import fit, settings

from unlearn_lightning.loggers.factory import run_loggers
from unlearn_lightning.loggers.run_name import described
from unlearn_lightning.loggers.wandb_logger import ANSWERS, RunInWandb
from unlearn_lightning.main import main
from unlearn_lightning.records import read_records
from unlearn_lightning.study.local import Local
from unlearn_lightning.study.work import Work

CONFIGS = Path(__file__).parents[1] / "configs"
WANDB = Path(sys.executable).with_name("wandb")


def offline(folder):
    """The records of a folder's offline run, and the folder of its files."""
    (file,) = folder.glob("wandb/offline-run-*/run-*.wandb")
    read = subprocess.run([str(WANDB), "leet", "inspect", "--json", str(file)], capture_output=True, text=True, check=True).stdout
    return [json.loads(line) for line in read.splitlines() if line.strip().startswith("{")], file.parent / "files"


def told(records, kind):
    return [record[kind] for record in records if record["type"] == kind]


@pytest.mark.skipif(not WANDB.exists() and not shutil.which("wandb"), reason="the wandb command is not installed beside this Python")
def test_numbers_names_answers_and_the_model_are_in_the_offline_run(corpus, questions, tmp_path, monkeypatch):
    for name in ("WANDB_MODE", "WANDB_API_KEY", "WANDB_NAME", "WANDB_RUN_GROUP"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("NETRC", str(tmp_path / "no-netrc"))
    monkeypatch.setenv("WANDB_SILENT", "true")
    monkeypatch.setenv("WANDB_DATA_DIR", str(tmp_path))
    data = {"class_path": "ChatStage", "init_args": {"source": questions, "held_out_source": questions}}
    probe = {"class_path": "RetainLikelihood", "init_args": {"data": data, "limit": 3, "every_n_steps": 2}}
    talk = {"class_path": "ResponseBehaviour", "init_args": {"data": data, "limit": 2, "max_new_tokens": 3, "pattern": "x"}}
    logger = {"class_path": "lightning.pytorch.loggers.WandbLogger", "init_args": {"log_model": True}}
    (tmp_path / "kept.jsonl").write_text("".join(json.dumps({"prompt": f"Where is {i}?", "response": "There."}) + "\n" for i in range(9)))
    kept = {"class_path": "ChatStage", "init_args": {"source": str(tmp_path / "kept.jsonl"), "held_out_source": questions}}
    retain = {"model": {"init_args": {"retain": {"data": kept, "weight": 0.5}}}, "trainer": {"callbacks": [probe, talk], "logger": logger}}
    fit(settings(corpus, questions, tmp_path / "mine", "NPO", **retain))
    wandb.finish()
    records, files = offline(tmp_path / "mine")

    # Every number of metrics.csv at its step, and the optimizer step as the x axis of all of them.
    items = [row["item"] for row in told(records, "history")]
    found = {(name, row["trainer/global_step"]): row[name] for row in items for name in row if not name.startswith(("_", "answers/"))}
    with (tmp_path / "mine/metrics.csv").open() as file:
        expected = {(k, int(row["step"])): float(v) for row in csv.DictReader(file) for k, v in row.items() if v and k != "step"}
    assert {key: value for key, value in found.items() if key in expected} == pytest.approx(expected)
    assert {name for name, _ in expected} >= {
        "train/loss", "train/forget_loss", "train/retain_loss", "train/grad_norm", "train/lr", "train/tokens_per_second",
    }  # fmt: skip
    (axis,) = [metric for metric in told(records, "metric") if "glob_name" in metric]
    assert (axis["glob_name"], axis["step_metric"]) == ("*", "trainer/global_step")

    # The summary ends with what the probes measured last.
    summary = {k: v for update in told(records, "summary") for k, v in update["update"].items()}
    last = read_records(tmp_path / "mine", "retain")[5]["metrics"]
    assert {key: summary[key] for key in last} == pytest.approx(last)

    (run,) = told(records, "run")
    assert run["display_name"] == "NPO beta=0.5 lr=0.003 scratch-llama ChatStage retain ChatStage*0.5 seed=3 mine"
    assert (run["run_group"], run["job_type"]) == ("ChatStage scratch-llama", "fit")
    assert {"objective=NPO", "lr=0.003", "seed=3"} <= set(run["tags"])
    # The whole resolved configuration, not only the module's arguments.
    assert all(part in json.dumps(run) for part in ("micro_batch_size", "max_steps", "RetainLikelihood", "weight_decay"))

    (model,) = [artifact for artifact in told(records, "artifact") if artifact["type"] == "model"]
    result = tmp_path / "mine/model"
    assert {Path(entry["local_path"]) for entry in model["manifest"]["contents"]} == set(result.iterdir())

    tables = sorted((files / "media/table/answers").iterdir(), key=lambda path: int(path.name.split("_")[1]))
    shown = [json.loads(path.read_text()) for path in tables]
    spoken = read_records(tmp_path / "mine", "behaviour")
    rows = [[step, row["id"], row["text"], row["answer"]] for step, record in spoken.items() for row in record["examples"]]
    assert [(one["columns"], one["data"]) for one in shown] == [(ANSWERS, rows[:2]), (ANSWERS, rows)]
    (measured,) = (files / "media/table").glob("measured_*")
    (row,) = [row for row in json.loads(measured.read_text())["data"] if row[0] == "retain/chat_log_lik"]
    first = read_records(tmp_path / "mine", "retain")[0]["metrics"]["retain/chat_log_lik"]
    assert row[1:] == ["log-likelihood of chat responses", "nats/token", "higher", first, last["retain/chat_log_lik"]]


def test_the_model_stays_here_unless_asked_for(tmp_path, monkeypatch):
    monkeypatch.delenv("WANDB_MODE", raising=False)
    for given, expected in (({}, (False, False)), ({"log_model": False}, (False, False)), ({"log_model": True}, (True, False))):
        one = {"class_path": "lightning.pytorch.loggers.WandbLogger", "init_args": {**given, "offline": True}}
        logger = run_loggers(tmp_path, {"trainer": {"logger": one}}, {})[-1]
        assert (logger.logs_result, logger._log_model) == expected


HUB = {"beta": 0.1, "optimizer": {"init_args": {"lr": 1e-5}}}
HUB["backbone"] = {"model": "meta-llama/Llama-3.2-1B", "lora": {"rank": 16}, "quantization": "nf4"}


@pytest.mark.parametrize(
    ("verb", "settings", "folder", "name"),
    [
        ("fit", HUB, None, "NPO beta=0.1 lr=1e-05 Llama-3.2-1B-nf4 r16 TofuStage seed=7 0123456789ab"),
        ("fit", {"backbone": {"model": "builtin:tiny-llama"}}, "runs/one", "NPO tiny-llama TofuStage seed=7 one"),
        ("validate", {"backbone": {"model": "runs/tofu/model"}}, "v", "validate NPO tofu TofuStage seed=7 v"),
    ],
)
def test_a_single_run_is_called_by_what_it_does(verb, settings, folder, name, monkeypatch):
    for variable in ("WANDB_NAME", "WANDB_RUN_GROUP", "WANDB_JOB_TYPE"):
        monkeypatch.delenv(variable, raising=False)
    model = {"class_path": "unlearn_lightning.objectives.npo.NPO", "init_args": settings}
    config = {"model": model, "data": {"class_path": "TofuStage"}, "seed_everything": 7, "run_folder": folder}
    place = Path(folder or "runs/NPO-TofuStage-0123456789ab")
    assert described(config, verb, place)["name"] == name
    monkeypatch.setenv("WANDB_NAME", "my own")
    assert described(config, verb, place)["name"] == "my own"


def test_a_studys_runs_are_grouped_and_tagged(corpus, questions, tmp_path, monkeypatch):
    from test_study import config_of, small, tree

    for name in ("WANDB_MODE", "WANDB_API_KEY", "WANDB_PROJECT"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("NETRC", str(tmp_path / "no-netrc"))
    settings = small(corpus, questions, retrained=False, positions=[2], base={"trainer": {"max_epochs": 1}})
    settings["objectives"] = {"npo-slow": {**settings["objectives"]["npo"], "tags": {"objective": "npo", "lr": 2e-5}}}
    runs = tree(settings, tmp_path / "store")
    Local(jobs=1).launch(Work(config_of(settings), runs, tmp_path / "study", Console(quiet=True)))
    (run,) = told(offline(runs[-1].folder)[0], "run")
    assert (run["display_name"], run["run_group"], run["job_type"]) == ("seed0/p2/npo-slow lr=2e-05", "small", "unlearn")
    assert {"seed=0", "p=2", "objective=npo", "path=inst-safety-math", "lr=2e-05"} <= set(run["tags"])


@pytest.mark.skipif(not WANDB.exists() and not shutil.which("wandb"), reason="the wandb command is not installed beside this Python")
def test_a_run_that_fails_is_called_failed(tmp_path, monkeypatch, capfd):
    """It was called finished, as the command that says an error in one line raises nothing."""
    for name in ("WANDB_MODE", "WANDB_API_KEY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("NETRC", str(tmp_path / "no-netrc"))
    warned = []
    monkeypatch.setattr(wandb, "termwarn", lambda text, *_, **__: warned.append(text))
    data = tmp_path / "both.jsonl"
    data.write_text(json.dumps({"prompt": "Who?", "response": "Ann."}) + "\n")
    files = ["-c", str(CONFIGS / "own_data.yaml"), "--data.source", str(data), "--model.retain.data.source", str(data)]
    assert main(["fit", *files, "--model.backbone.model", "builtin:tiny-llama", "--run_folder", str(tmp_path / "mine")]) == 1
    assert capfd.readouterr().err.splitlines()[-1].startswith("unlearn: 1 of the 1 examples that are unlearned are retained, too")
    assert not any("setting has no effect" in text for text in warned)
    assert wandb.run is None
    (end,) = told(offline(tmp_path / "mine")[0], "exit")
    assert end["exit_code"] == 1


def test_commands_of_one_program_log_into_runs_of_their_own(tmp_path, monkeypatch):
    """The second one's numbers went into the first one's run, which W&B still had open."""
    for name in ("WANDB_MODE", "WANDB_API_KEY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("NETRC", str(tmp_path / "no-netrc"))
    monkeypatch.setenv("WANDB_SILENT", "true")
    files = ["-c", str(CONFIGS / "stages/safety.yaml"), "-c", str(CONFIGS / "backbones/tiny-llama.yaml")]
    small = ["--trainer.max_steps", "1", "--data.train_examples", "8", "--data.held_out_examples", "2"]
    for name in ("a", "b"):
        assert main(["fit", *files, *small, "--run_folder", str(tmp_path / name)]) == 0
        assert wandb.run is None
        assert len(list((tmp_path / name).glob("wandb/offline-run-*"))) == 1
    # A run that the program has opened itself is logged into and is the program's to end, whether a command succeeds or fails.
    mine = wandb.init(mode="offline", dir=tmp_path)
    assert main(["fit", *files, *small, "--run_folder", str(tmp_path / "c")]) == 0
    assert main(["report", str(tmp_path / "nothing")]) == 2
    assert wandb.run is mine
    assert "train/loss" in dict(mine.summary)
    # All runs of a study would be logged into it.
    assert main(["study", "configs/studies/demo.yaml", "--folder", str(tmp_path / "study")]) == 2
    assert not (tmp_path / "study").exists()
    mine.finish()


@pytest.mark.parametrize("traceback", ["", "1"])
@pytest.mark.parametrize("asked", [False, True])
def test_no_end_of_a_command_leaves_its_run_open(traceback, asked, monkeypatch):
    """Whether it fails in a line, with its traceback, or was asked to stop: the next command's numbers would go into the same run."""
    ends = []

    def command(*arguments):
        monkeypatch.setattr(wandb, "run", object())
        raise ValueError("It did not work.")

    def finish(exit_code):
        ends.append(exit_code)
        wandb.run = None

    monkeypatch.setenv("UNLEARN_TRACEBACK", traceback)
    monkeypatch.setattr(wandb, "finish", finish)
    monkeypatch.setattr("unlearn_lightning.main._dispatch", command)
    monkeypatch.setattr("unlearn_lightning.main.was_asked", lambda: asked)
    with pytest.raises(ValueError, match="did not work") if traceback or asked else nullcontext():
        assert main(["fit"]) == 1
    assert ends == [int(not asked)]


@pytest.mark.parametrize("status", [0, 1])
def test_a_command_says_in_wandb_how_it_ended(status, monkeypatch, capsys):
    def command(*arguments):
        monkeypatch.setattr(wandb, "run", object())
        return status

    def finish(exit_code):
        raise OSError(f"No space for exit code {exit_code}")

    monkeypatch.setattr(wandb, "finish", finish)
    monkeypatch.setattr("unlearn_lightning.main._dispatch", command)
    # A finished run is finished, whatever W&B cannot do; and it is tried once.
    assert main(["fit"]) == status
    assert capsys.readouterr().err == (
        f"W&B could not end its run, whose numbers are in metrics.csv all the same: No space for exit code {status}\n"
    )


def test_a_wandb_that_cannot_end_does_not_hide_what_went_wrong(monkeypatch, capsys):
    def finish(exit_code):
        raise OSError("No space left on device")

    def command(*arguments):
        monkeypatch.setattr(wandb, "run", object())
        raise ValueError("There is nothing to report.")

    monkeypatch.setattr(wandb, "finish", finish)
    monkeypatch.setattr("unlearn_lightning.main._dispatch", command)
    assert main(["report", "runs/nothing"]) == 2
    first, second = capsys.readouterr().err.splitlines()
    assert first.endswith("all the same: No space left on device")
    assert second.startswith("unlearn report: There is nothing to report.")


def test_a_run_that_fails_in_a_study_is_called_failed(corpus, questions, tmp_path, monkeypatch):
    from test_study import config_of, small, tree

    ends = []

    def run(*arguments, **settings):
        monkeypatch.setattr(wandb, "run", object())
        raise ValueError("It did not work.")

    monkeypatch.setattr("unlearn_lightning.study.execution.lightning_cli.run", run)
    monkeypatch.setattr(wandb, "finish", lambda exit_code: ends.append(exit_code))
    settings = small(corpus, questions, retrained=False, positions=[1], base=None)
    (first, *_) = runs = tree(settings, tmp_path / "store")
    work = Work(config_of(settings), runs[:1], tmp_path / "study", Console(quiet=True))
    Local(jobs=1).launch(work)
    assert first.key in work.failed
    assert ends[0] == 1


def test_what_wandb_prints_at_a_runs_end_is_left_to_the_closing_table(tmp_path):
    assert RunInWandb(save_dir=tmp_path, offline=True)._wandb_init["settings"]["max_end_of_run_summary_metrics"] == 0
    assert RunInWandb(save_dir=tmp_path, offline=True, settings={"quiet": True})._wandb_init["settings"] == {"quiet": True}
