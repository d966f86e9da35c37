"""Helpers that start real runs: in this process, or as the `unlearn` command with several processes."""

import csv
import json
import socket
import subprocess
import sys
from pathlib import Path

import yaml
from forked import Forked, together
from safetensors.torch import load_file

from unlearn_lightning.cli import lightning_cli
from unlearn_lightning.main import main
from unlearn_lightning.study.study_config import merged

UNLEARN = [sys.executable, "-m", "unlearn_lightning.main"]
ADAMW = {"class_path": "torch.optim.AdamW", "init_args": {"lr": 3e-3, "weight_decay": 0.0}}


# Every conversation of a stage may begin with it: enough tokens for two of them to compute it once.
SYSTEM_PROMPT = "You know the books of this town and who wrote them. Answer in a few words, and say so where you do not know the author."


def settings(corpus, questions, folder, cls="StageFineTuning", **more):
    """A run of 5 steps (8 + 8 + 3 examples, twice, less one step) on 19 ragged questions with a 2-layer model in float32."""
    scratch = {"hidden": 32, "layers": 2, "intermediate": 64, "heads": 4, "vocab_size": 320, "corpus": [corpus]}
    config = {
        "seed_everything": 3,
        "run_folder": str(folder),
        "model": {"class_path": cls, "init_args": {"optimizer": ADAMW, "backbone": {"scratch": scratch, "lora": None}}},
        "data": {
            "class_path": "ChatStage",
            "init_args": {"source": questions, "held_out_source": questions, "batch_size": 8, "micro_batch_size": 8, "bucket_batches": 2},
        },
        "trainer": {
            "accelerator": "cpu", "devices": 1, "max_epochs": -1, "max_steps": 5, "enable_progress_bar": False,
            "enable_model_summary": False, "gradient_clip_val": 1.0,
        },
    }  # fmt: skip
    return merged(config, more)


def fit(config):
    """`unlearn fit` in this process; gives the finished command."""
    return lightning_cli.run({"subcommand": "fit", "fit": config})


def command(*arguments, cwd="."):
    """`unlearn` as a process of its own, which has this one's imports; gives its exit status, and what it printed in case of a failure."""
    process = Forked(lambda: main(list(arguments)), cwd)
    return process.wait(), process.stderr()


def command_fit(config):
    """`unlearn fit -c FILE`, started as a user does it, with the further processes that it starts by itself: 8 s of imports in each."""
    folder = Path(config["run_folder"])
    file = folder.with_suffix(".yaml")
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(yaml.safe_dump(config))
    done = subprocess.run([*UNLEARN, "fit", "-c", str(file)], capture_output=True, text=True, timeout=280, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    return folder


def by_two_processes(verb, config):
    """A command on two devices of one machine, by two processes in the environment that torchrun gives them; what they printed."""
    group = {"WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2", "GROUP_RANK": "0", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port())}
    ranks = [{**group, "RANK": rank, "LOCAL_RANK": rank, "TORCHELASTIC_RUN_ID": "two"} for rank in ("0", "1")]
    return together(*((lambda: bool(lightning_cli.run({"subcommand": verb, verb: config})) - 1, rank) for rank in ranks))


def free_port():
    """A port of this machine that nobody listens on."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


def weights(folder):
    """The result of a run as tensors."""
    (path,) = [*Path(folder).glob("model/model.safetensors"), *Path(folder).glob("adapter/adapter_model.safetensors")]
    return load_file(path)


def held_out(folder):
    """What `validate` or `test` measured on the stage's held-out examples."""
    name = "held_out/mean_token_log_lik"
    with (Path(folder) / "metrics.csv").open() as file:
        return next(float(row[name]) for row in csv.DictReader(file) if row[name])


def logged_steps(folder):
    """What each optimizer step logged, by step: the numbers of metrics.csv that a run made again has again, so all but its speed."""
    with (Path(folder) / "metrics.csv").open() as file:
        rows = [{k: float(v) for k, v in row.items() if v and not k.endswith("per_second")} for row in csv.DictReader(file)]
    steps = {row["step"]: row for row in rows if "train/loss" in row}
    assert len(steps) == sum("train/loss" in row for row in rows), "a step is there twice"
    return steps


def metrics_text(folder):
    """metrics.csv as text without the column that a run made again has not again: its speed."""
    with (Path(folder) / "metrics.csv").open() as file:
        rows = list(csv.DictReader(file))
    return "\n".join(str({k: v for k, v in row.items() if k != "train/tokens_per_second"}) for row in rows)


def run_json(folder):
    """The run's own account."""
    return json.loads((Path(folder) / "run.json").read_text())
