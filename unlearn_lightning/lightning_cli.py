"""The LightningCLI behind `unlearn fit`, `validate` and `test`. A study calls it with a dict of arguments.

    run(["fit", "-c", "configs/stages/tofu.yaml", "-c", "configs/backbones/tiny-llama.yaml"])     # -> the run folder
    run({"subcommand": "fit", "fit": {"model": {...}, "data": {...}, "run_folder": "runs/a"}})

Importing `objectives` and `callbacks` once gives every class in them its short name in configs; nothing else lists them.
"""

from __future__ import annotations

import difflib
import logging
import os
import pkgutil
import re
import sys
import warnings
from collections.abc import Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI
from lightning.pytorch.loggers import CSVLogger, Logger, WandbLogger

import callbacks
import unlearn_lightning.data
import unlearn_lightning.modules
from unlearn_lightning import objectives
from unlearn_lightning.data import StageData
from unlearn_lightning.modules import CausalLMModule, Unlearning
from unlearn_lightning.records import is_finished
from unlearn_lightning.run_key import run_key
from unlearn_lightning.run_recorder import RunRecorder

for _package in (objectives, callbacks, unlearn_lightning.data, unlearn_lightning.modules):
    for _module in pkgutil.iter_modules(_package.__path__):
        import_module(f"{_package.__name__}.{_module.name}")

RUNS = "runs"
NULL_GROUP = r"(--\S+\.backbone)\.(lora|scratch)[=\n]null(?=\n|$)"
TRAINER_DEFAULTS = {
    # Our own sampler shares out the examples; Lightning's would shuffle them again under DDP.
    "use_distributed_sampler": False,
    "num_sanity_val_steps": 0,
    "max_epochs": 1,
    "log_every_n_steps": 1,
}
QUIET = (
    ".*does not have many workers.*", ".*Checkpoint directory.*exists and is not empty.*",
    ".*treespec.*", ".*LeafSpec.*",
    ".*Total length of `list` across ranks is zero.*",
)


class Parser(LightningArgumentParser):
    """A parser whose error is one line with the nearest right name."""

    def error(self, message: str, ex: Exception | None = None) -> Any:
        """Adds "did you mean" to what jsonargparse says."""
        return super().error(explain(str(message)), ex)


def explain(message: str) -> str:
    """One line for a mistyped class or key, with the nearest right name; other messages stay as they are."""
    wrong_class = re.search(r'Import of "?([\w.]+)"? failed|class_path["\']?: ["\']?([\w.]+)|unable to import.*?["\']([\w.]+)["\']', message)
    wrong_key = re.search(r"Unrecognized arguments: --?([\w.]+)|[Kk]ey ['\"]([\w.]+)['\"] is not expected|does not accept.*?['\"]([\w.]+)", message)
    for found, kind in ((wrong_key, "key"), (wrong_class, "class")):
        if found:
            name = next(group for group in found.groups() if group).rpartition(".")[2]
            near = difflib.get_close_matches(name, class_names() if kind == "class" else key_names(), n=1, cutoff=0.6)
            if near and near[0] != name:
                return f"There is no {kind} {name!r}. Did you mean {near[0]!r}?"
    return message


def class_names() -> list[str]:
    """Short names of every class a config may name."""
    return sorted(c.__name__ for base in (CausalLMModule, StageData, callbacks.Probe) for c in _subclasses(base))


def key_names() -> list[str]:
    """Names of every argument of those classes and of the trainer."""
    import inspect

    owners = [pl.Trainer, *(c for base in (CausalLMModule, StageData, callbacks.Probe) for c in _subclasses(base))]
    return sorted({name for owner in owners for name in inspect.signature(owner).parameters} | {"run_folder", "seed_everything"})


def _subclasses(base: type) -> list[type]:
    return [c for child in base.__subclasses__() for c in (child, *_subclasses(child))]


class UnlearnCLI(LightningCLI):
    """Fits or validates one run in its own run folder."""

    run_folder: Path

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Adds what belongs to the run and not to a class."""
        parser.add_argument(
            "--run_folder", type=str | None, default=None, help="Where the run goes; null for runs/<model>-<data>-<key>."
        )
        parser.add_argument(
            "--checkpoint_every_n_steps", type=int, default=100, help="Optimizer steps between checkpoints for resuming; 0 for none."
        )

    @staticmethod
    def subcommands() -> dict[str, set[str]]:
        """fit, validate and test; predict is left to generation tools."""
        return {k: v for k, v in LightningCLI.subcommands().items() if k != "predict"}

    def parse_arguments(self, parser: LightningArgumentParser, args: Any) -> None:
        """Parses; a null for a group such as `--model.backbone.lora null` is handed over in the form jsonargparse takes."""
        if not isinstance(args, Mapping):
            joined = "\n".join(sys.argv[1:] if args is None else args)
            args = re.sub(NULL_GROUP, r'\1={"\2": null}', joined).split("\n")
        super().parse_arguments(parser, args)

    def before_instantiate_classes(self) -> None:
        """Gives seeds that were left null the run's own, so that the written configuration says all."""
        if self.subcommand is None:
            return
        config = self.config[self.subcommand]
        seed = config.seed_everything if isinstance(config.seed_everything, int) else 0
        if config.model.init_args.backbone.seed is None:
            config.model.init_args.backbone.seed = seed
        if config.data.init_args.seed is None:
            config.data.init_args.seed = seed

    def resolved(self) -> dict[str, Any]:
        """The whole configuration of this run as plain values."""
        self._dump_config()
        return self.config_dump

    def instantiate_trainer(self, **kwargs: Any) -> pl.Trainer:
        """Names the run folder and adds what records the run."""
        config = self.resolved()
        self.key, parents = run_key(config)
        model, data = type(self.model).__name__, type(self.datamodule).__name__
        verb = "" if self.subcommand == "fit" else f"{self.subcommand}-"
        self.run_folder = Path(config["run_folder"] or Path(RUNS) / f"{verb}{model}-{data}-{self.key[:12]}").absolute()
        identity = {
            "kind": "unlearn" if isinstance(self.model, Unlearning) else "stage",
            "model": model, "data": data, "seed": config["seed_everything"], "key": self.key, "parents": parents,
        }  # fmt: skip
        kwargs["default_root_dir"] = str(self.run_folder)
        if config["trainer"]["logger"] in (None, True):
            kwargs["logger"] = self._loggers(config)
        own: list[pl.Callback] = [RunRecorder(self.run_folder, config, identity)] if self.subcommand == "fit" else []
        every = config["checkpoint_every_n_steps"]
        if self.subcommand == "fit" and every and config["trainer"]["enable_checkpointing"] is not False:
            own.append(_resume_checkpoints(self.run_folder, every))
        elif self.subcommand == "fit":
            kwargs["enable_checkpointing"] = False
        self.trainer_defaults = {**self.trainer_defaults, "callbacks": own}
        return super().instantiate_trainer(**kwargs)

    def _loggers(self, config: dict[str, Any]) -> list[Logger]:
        self.run_folder.mkdir(parents=True, exist_ok=True)
        loggers: list[Logger] = [CSVLogger(str(self.run_folder), name="", version="")]
        if os.environ.get("WANDB_MODE") != "disabled":
            loggers.append(wandb_logger(self.run_folder, config))
        return loggers

    def after_instantiate_classes(self) -> None:
        """A run that was interrupted goes on from its last checkpoint."""
        last = self.run_folder / "checkpoints" / "last.ckpt"
        if self.subcommand == "fit" and last.is_file() and self.config_init["fit"].get("ckpt_path") is None:
            self.config_init["fit"]["ckpt_path"] = str(last)

    def _run_subcommand(self, subcommand: str) -> None:
        if subcommand == "fit" and is_finished(self.run_folder):
            print(f"This run is finished already: {self.run_folder}. Delete the folder to train it again.")
            return
        super()._run_subcommand(subcommand)
        if self.trainer.is_global_zero:
            print(f"{'Run' if subcommand == 'fit' else 'Measured'}: {self.run_folder}")


def _resume_checkpoints(folder: Path, every: int) -> ModelCheckpoint:
    return ModelCheckpoint(
        dirpath=folder / "checkpoints", filename="last", every_n_train_steps=every, save_top_k=1, save_on_train_epoch_end=False,
        enable_version_counter=False,
    )  # fmt: skip


def wandb_logger(folder: Path, config: dict[str, Any], **settings: Any) -> WandbLogger:
    """A W&B logger in the run folder: online with an account, offline without one (or with WANDB_MODE=offline)."""
    mode = os.environ.get("WANDB_MODE")
    has_account = bool(os.environ.get("WANDB_API_KEY")) or "api.wandb.ai" in _netrc()
    return WandbLogger(
        project=os.environ.get("WANDB_PROJECT", "unlearn_lightning"),
        save_dir=str(folder), name=folder.name, config=config, offline=mode == "offline" or (mode is None and not has_account),
        **settings,
    )  # fmt: skip


def _netrc() -> str:
    path = Path(os.environ.get("NETRC", Path.home() / ".netrc"))
    return path.read_text(encoding="utf-8") if path.is_file() else ""


def run(args: Sequence[str] | Mapping[str, Any] | None = None, **overrides: Any) -> UnlearnCLI:
    """Runs one command: arguments as on the command line, or as nested dicts.

    Raises:
        Whatever bad input or training raises; nothing that was computed is lost.
    """
    logging.getLogger("lightning.pytorch.utilities.rank_zero").addFilter(lambda r: "💡" not in r.getMessage())
    for pattern in QUIET:
        warnings.filterwarnings("ignore", pattern)
    settings: dict[str, Any] = {
        "model_class": CausalLMModule, "datamodule_class": StageData, "subclass_mode_model": True, "subclass_mode_data": True,
        "auto_configure_optimizers": False, "save_config_callback": None, "seed_everything_default": 0,
        "load_from_checkpoint_support": False, "trainer_defaults": TRAINER_DEFAULTS, "parser_class": Parser,
        "parser_kwargs": {"prog": "unlearn", "description": "Staged fine-tuning and unlearning.", "default_env": True, "env_prefix": "UNLEARN"},
        **overrides,
    }  # fmt: skip
    saved = sys.argv
    try:
        if args is not None:
            sys.argv = saved[:1]
        return UnlearnCLI(args=args, **settings)
    finally:
        sys.argv = saved
