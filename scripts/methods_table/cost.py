"""What a step of each objective costs, in steps of fine-tuning on the same batches: CPU seconds of one thread, measured in turns.

    costs(Path("configs/studies/demo_methods.yaml"), Path("runs/store"))       # {"ga": 1.0, "npo": 1.3, ...}

A step is the difference between runs of 12 and of 4 steps, so that loading and what is done once before step 1 do not count.
"""

import contextlib
import copy
import io
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from statistics import median
from typing import Any

import torch

from unlearn_lightning.cli import lightning_cli
from unlearn_lightning.cli.resolver import Resolver
from unlearn_lightning.study.study_config import StudyConfig
from unlearn_lightning.study.study_file import read_study_file
from unlearn_lightning.study.tree import plan

SHORT, LONG, TURNS = 4, 12, 3


def costs(file: Path, store: Path) -> dict[str, float]:
    """Each objective's cost, from the end of p=1 of seed 1, which lies in the store.

    Raises:
        FileNotFoundError: the store lacks that model.
    """
    torch.set_num_threads(1)
    configs = dict(_configs(file, store))
    taken: dict[str, list[float]] = {name: [] for name in configs}
    for _ in range(TURNS):
        for name, config in configs.items():
            taken[name].append(_seconds(config, LONG) - _seconds(config, SHORT))
    base = median(taken["fine-tuning"])
    return {name: median(found) / base for name, found in taken.items() if name != "fine-tuning"}


def _configs(file: Path, store: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    settings = {**read_study_file(file), "seeds": [1], "positions": [1], "probes": {}, "stage_probes": [], "relearning": {}}
    runs = plan(StudyConfig(**settings), store, Resolver().resolve)
    last = next(run for run in reversed(runs) if run.kind == "stage" and run.tags.get("p") == 1)
    if not (last.folder / "model").is_dir():
        raise FileNotFoundError(f"No model of {last.name} in {store}: unlearn study {file} --seeds '[1]' makes it.")
    for run in runs:
        if run.kind == "unlearn":
            config = copy.deepcopy(run.config)
            yield run.tags["objective"], config
    plain = copy.deepcopy(config)
    plain["model"] = {
        "class_path": "unlearn_lightning.modules.StageFineTuning",
        "init_args": {name: config["model"]["init_args"][name] for name in ("backbone", "optimizer", "lr_scheduler")},
    }
    yield "fine-tuning", plain


def _seconds(config: dict[str, Any], steps: int) -> float:
    silence = io.StringIO()
    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(silence), contextlib.redirect_stderr(silence):
        trainer = {**config["trainer"], "max_steps": steps, "max_epochs": -1, "logger": False}
        one = {**copy.deepcopy(config), "trainer": trainer, "run_folder": folder}
        started = time.process_time()
        lightning_cli.run({"subcommand": "fit", "fit": one})
        return time.process_time() - started
