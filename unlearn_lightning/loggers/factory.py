"""Where a run's numbers go: always to metrics.csv in its folder, and to W&B, unless `trainer.logger` names other loggers.

    unlearn fit -c configs/stages/tofu.yaml -c configs/backbones/tiny-llama.yaml -c configs/loggers/tensorboard.yaml

A configured logger is Lightning's own class, or any other, with its settings. What they leave open the run says: its folder (a
relative `save_dir` lies in it), its name and its tags. Every logger gets the whole resolved configuration.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import yaml
from lightning.pytorch.cli import instantiate_class
from lightning.pytorch.loggers import CSVLogger, Logger, MLFlowLogger, TensorBoardLogger, WandbLogger

from unlearn_lightning.loggers import mlflow_store, wandb_settings
from unlearn_lightning.loggers.mlflow_logger import RunInMLflow
from unlearn_lightning.loggers.resume import LoggedRun
from unlearn_lightning.loggers.run_name import LONGEST_NAME, LONGEST_TAG
from unlearn_lightning.loggers.wandb_logger import LIGHTNINGS, RunInWandb
from unlearn_lightning.runs.metrics_file import RunMetrics

LIGHTNINGS_MLFLOW = ("lightning.pytorch.loggers.MLFlowLogger", "lightning.pytorch.loggers.mlflow.MLFlowLogger")


def run_loggers(folder: Path, config: Mapping[str, Any], about: Mapping[str, Any], logged: LoggedRun | None = None) -> list[Logger]:
    """The loggers of one run.

    Args:
        folder: the run folder.
        config: the run's whole resolved configuration. `trainer.logger` null or true stands for W&B, false for none; otherwise it
            holds one or more `{class_path: ..., init_args: ...}`.
        about: how the run is called (run_name.py, or its study): name, group, job_type, and tags such as "seed=1".
        logged: how its loggers know it; null for a run of theirs that nothing goes on with.

    Raises:
        ValueError: a logger's package is not installed.
    """
    folder.mkdir(parents=True, exist_ok=True)
    loggers: list[Logger] = [RunMetrics(folder)]
    configured = config["trainer"]["logger"]
    if configured in (None, True):
        configured = {"class_path": "lightning.pytorch.loggers.WandbLogger", "init_args": {}}
    for one in configured if isinstance(configured, list) else [configured] if configured else []:
        kind = one["class_path"].rpartition(".")[2]
        if kind == "WandbLogger" and wandb_settings.is_disabled():
            continue
        settings = _complete(kind, dict(one.get("init_args") or {}), folder, config, about)
        class_path, result = one["class_path"], False
        if class_path in LIGHTNINGS:
            class_path = f"{RunInWandb.__module__}.{RunInWandb.__name__}"
            # "all" stays Lightning's: every checkpoint.
            result = settings.get("log_model") is True
            settings["log_model"] = "all" if settings.get("log_model") == "all" else False
        if logged is not None:
            _go_on(kind, settings, folder, logged)
            if class_path in LIGHTNINGS_MLFLOW:
                class_path = f"{RunInMLflow.__module__}.{RunInMLflow.__name__}"
        try:
            loggers.append(instantiate_class((), {"class_path": class_path, "init_args": settings}))
        except ImportError as error:
            raise ValueError(
                f"{kind} needs a package that is not installed ({error}). Those of configs/loggers/ are the extra `loggers`: "
                "pip install -e '.[loggers]'."
            ) from error
        if logged is not None and isinstance(loggers[-1], RunInMLflow):
            loggers[-1].logged_as = logged.id
        if isinstance(loggers[-1], RunInWandb):
            loggers[-1].logs_result = result
    return loggers


def _go_on(kind: str, settings: dict[str, Any], folder: Path, logged: LoggedRun) -> None:
    """Has the logger go on with what it has of this run, where its settings leave that open."""
    if kind == "WandbLogger" and not os.environ.get("WANDB_RUN_ID"):
        # A trial's id, which the sweep's agent sets, is never replaced. Lightning says resume="allow".
        settings.setdefault("id", logged.id)
    if kind == "TensorBoardLogger":
        if settings.get("version") is None and Path(settings["save_dir"]).is_relative_to(folder):
            settings["version"] = 0
        if logged.goes_on_at is not None and settings.get("purge_step") is None:
            settings["purge_step"] = logged.goes_on_at


def _complete(kind: str, settings: dict[str, Any], folder: Path, config: Mapping[str, Any], about: Mapping[str, Any]) -> dict[str, Any]:
    """A logger's settings with what they leave open."""
    name = about.get("name", folder.name)
    if settings.get("save_dir"):
        settings["save_dir"] = str(folder / settings["save_dir"])
    if kind == "WandbLogger":
        given = {key: value for key, value in settings.items() if value is not None}
        offline = given.get("offline") or wandb_settings.is_offline()
        mode = {"mode": "offline"} if offline else {}
        default = {"project": wandb_settings.project(), "save_dir": str(folder), "name": name}
        found = {**default, **about, **mode, **given, "config": dict(config), "offline": offline}
        # W&B refuses longer ones.
        return {**found, "name": found["name"][:LONGEST_NAME], "tags": [tag[:LONGEST_TAG] for tag in found.get("tags", ())]}
    if kind == "MLFlowLogger":
        tags = {key: about[key] for key in ("group", "job_type") if key in about}
        tags |= dict(tag.split("=", 1) for tag in about.get("tags", []))
        settings |= mlflow_store.place(settings)
        settings["run_name"] = settings.get("run_name") or name
        settings["tags"] = {**tags, **(settings.get("tags") or {})}
    return settings


class ConfigToLoggers(pl.Callback):
    """Gives the whole resolved configuration to every logger when the run starts.

    Args:
        config: the configuration.
    """

    def __init__(self, config: Mapping[str, Any]) -> None:
        self.config = dict(config)

    def setup(self, trainer: pl.Trainer, pl_module: Any, stage: str) -> None:
        """Logs it, as settings by name and, where a logger can show texts, as the text of config.yaml."""
        if trainer.is_global_zero:
            log_config(trainer.loggers, self.config)


def log_config(loggers: Sequence[Logger], config: Mapping[str, Any]) -> None:
    """The configuration to each logger; the run folder has it as config.yaml, and W&B was made with it."""
    text = yaml.safe_dump(dict(config), sort_keys=False)
    for logger in loggers:
        if isinstance(logger, (CSVLogger, WandbLogger)):
            continue
        logger.log_hyperparams(dict(config))
        if isinstance(logger, TensorBoardLogger):
            # Four spaces make it a block of code in Markdown.
            logger.experiment.add_text("config", "".join(f"    {line}\n" for line in text.splitlines()))
        elif isinstance(logger, MLFlowLogger):
            logger.experiment.log_text(str(logger.run_id), text, "config.yaml")
