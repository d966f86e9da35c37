"""The LightningCLI behind `unlearn fit`, `validate` and `test`. A study calls it with a dict of arguments.

    run(["fit", "-c", "configs/stages/tofu.yaml", "-c", "configs/backbones/tiny-llama.yaml"])     # -> the run folder
    run({"subcommand": "fit", "fit": {"model": {...}, "data": {...}, "run_folder": "runs/a"}})

Importing `objectives` and `callbacks` once gives every class in them its short name in configs; nothing else lists them.
Modules of other packages join by an entry point (plugins.py).
"""

from __future__ import annotations

import copy
import logging
import os
import pkgutil
import shutil
import sys
import warnings
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from importlib import import_module
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
from lightning.fabric.plugins import CheckpointIO
from lightning.fabric.plugins.environments import SLURMEnvironment
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI
from lightning.pytorch.trainer.connectors.signal_connector import _SignalConnector
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from lightning.pytorch.utilities.rank_zero import rank_zero_info

import callbacks
import unlearn_lightning.data
import unlearn_lightning.models.fsdp2_strategy
import unlearn_lightning.modules
from unlearn_lightning import objectives
from unlearn_lightning.cli.arguments import prepared
from unlearn_lightning.cli.class_change import told_class_changes
from unlearn_lightning.cli.did_you_mean import Parser
from unlearn_lightning.cli.early_checks import check_found, check_optimizer, check_settings
from unlearn_lightning.cli.environment import refuse_unknown
from unlearn_lightning.cli.parser_internals import variables
from unlearn_lightning.cli.plugins import import_plugins
from unlearn_lightning.cli.secrets import refuse_secrets
from unlearn_lightning.data import StageData
from unlearn_lightning.loggers import wandb_settings
from unlearn_lightning.loggers.factory import ConfigToLoggers, run_loggers
from unlearn_lightning.loggers.resume import GoesOnInLoggers, logged_run
from unlearn_lightning.modules import CausalLMModule, Unlearning
from unlearn_lightning.modules.reference_file import ReferenceFile
from unlearn_lightning.preemption import listen
from unlearn_lightning.records import is_finished, locked, read_run, remove_left_overs
from unlearn_lightning.runs.checkpoint_io import WholeFileIO
from unlearn_lightning.runs.computed_with import computed_with
from unlearn_lightning.runs.content import refuse_changed
from unlearn_lightning.runs.cut_short import check_recorded
from unlearn_lightning.runs.run_key import reference_key, run_key
from unlearn_lightning.runs.run_recorder import ResumeCheckpoint, RunRecorder, check_writable, clear

for _package in (objectives, callbacks, unlearn_lightning.data, unlearn_lightning.modules):
    for _module in pkgutil.iter_modules(_package.__path__):
        import_module(f"{_package.__name__}.{_module.name}")
import_plugins()

TRAINER_DEFAULTS = {
    # Our own sampler shares out the examples; Lightning's would shuffle them again under DDP.
    "use_distributed_sampler": False,
    "num_sanity_val_steps": 0,
    "max_epochs": 1,
    "log_every_n_steps": 1,
}
QUIET = (
    ".*Experiment logs directory.*exists and is not empty.*",
    ".*does not have many workers.*",
    ".*Checkpoint directory.*exists and is not empty.*",
    ".*treespec.*",
    ".*LeafSpec.*",
    ".*`srun` command is available on your system.*",
    ".*Total length of `list` across ranks is zero.*",
    # The stage's sampler goes on where the run's progress says, and the run stops if it does not.
    ".*your dataloader is not resumable.*",
)


class _OurSignals(_SignalConnector):
    """Lightning's own handler of SIGTERM ends a run in the middle of an optimizer step without a checkpoint, and forgets one at its end."""

    _restore: Callable[[], None] | None = None

    def register_signal_handlers(self) -> None:
        """Listens for the time of the work, where the process does not do so anyway."""
        self._restore = listen()

    def teardown(self) -> None:
        """Ends that; Lightning also calls it where nothing was registered."""
        if self._restore is not None:
            self._restore()


class UnlearnCLI(LightningCLI):
    """Fits or validates one run in its own run folder."""

    run_folder: Path
    extra_callbacks: Sequence[pl.Callback] = ()
    wandb_settings: Mapping[str, Any] = {}
    known_config: dict[str, Any] | None = None

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Adds what belongs to the run and not to a class."""
        parser.add_argument("--run_folder", type=str | None, default=None, help="Where the run goes; null for runs/<model>-<data>-<key>.")
        parser.add_argument(
            "--checkpoint_every_n_steps", type=int, default=100, help="Optimizer steps between checkpoints for resuming; 0 for none."
        )

    @staticmethod
    def subcommands() -> dict[str, set[str]]:
        """fit, validate and test; predict is left to generation tools."""
        return {k: v for k, v in LightningCLI.subcommands().items() if k != "predict"}

    def parse_arguments(self, parser: LightningArgumentParser, args: Any) -> None:
        """Parses the words in an order in which flags win, and says which settings a change of class keeps and drops."""
        saved = sys.argv
        # jsonargparse writes into what it is given.
        args = copy.deepcopy(dict(args)) if isinstance(args, Mapping) else prepared(saved[1:] if args is None else args)
        refuse_unknown(os.environ, variables(parser))
        try:
            sys.argv = saved[:1]
            with told_class_changes() as changes:
                super().parse_arguments(parser, args)
        finally:
            sys.argv = saved
        for change in changes:
            rank_zero_info(change)

    def _set_seed(self) -> None:
        try:
            super()._set_seed()
        except ValueError as error:
            raise ValueError(f"seed_everything: {error}.") from error

    def before_instantiate_classes(self) -> None:
        """Completes the seeds, and leaves the loggers to `_name_loggers`, which knows the run folder."""
        if self.subcommand is not None:
            config = self.config[self.subcommand]
            # `seed_everything: true` draws one, false leaves the global generators alone.
            seed = config.seed_everything
            fill_seeds(config, seed if type(seed) is int else int(os.environ.get("PL_GLOBAL_SEED", 0)))
            refuse_secrets(self.resolved())
            check_settings(self.resolved())
            check_found(self.resolved())
            config.trainer.logger = False

    def resolved(self) -> dict[str, Any]:
        """The whole configuration of this run as plain values."""
        if self.known_config is None:
            self.__dict__.pop("config_dump", None)
            self._dump_config()
            self.known_config = self.config_dump
        return self.known_config

    def instantiate_trainer(self, **kwargs: Any) -> pl.Trainer:
        """Names the run folder and adds what records the run."""
        config = self.resolved()
        check_recorded(config)
        self.key, parents = run_key(config)
        model, data = type(self.model).__name__, type(self.datamodule).__name__
        verb = "" if self.subcommand == "fit" else f"{self.subcommand}-"
        self.run_folder = Path(config["run_folder"] or wandb_settings.usual_folder() / f"{verb}{model}-{data}-{self.key[:12]}").absolute()
        if self.subcommand != "fit" and (self.run_folder / "run.json").is_file():
            raise ValueError(
                f"{self.run_folder} holds a training run, whose records `{self.subcommand}` would overwrite: set another --run_folder."
            )
        check_writable(self.run_folder)
        self._check_probe_names()
        identity = {
            "kind": "unlearn" if isinstance(self.model, Unlearning) else "stage",
            "model": model, "data": data, "seed": config["seed_everything"], "key": self.key, "parents": parents,
        }  # fmt: skip
        if isinstance(self.model, Unlearning):
            identity["local"] = self.model.local
        kwargs["default_root_dir"] = str(self.run_folder)
        kwargs["logger"] = False
        own = [*self.extra_callbacks, ConfigToLoggers(config)]
        if self.subcommand == "fit":
            kwargs["plugins"] = self._plugins()
            own.append(RunRecorder(self.run_folder, config, identity))
        every = config["checkpoint_every_n_steps"]
        if self.subcommand == "fit" and every and config["trainer"]["enable_checkpointing"] is not False:
            own.append(ResumeCheckpoint(self.run_folder, every))
        elif self.subcommand == "fit":
            kwargs["enable_checkpointing"] = False
        self.trainer_defaults = {**self.trainer_defaults, "callbacks": own}
        try:
            trainer = super().instantiate_trainer(**kwargs)
        except MisconfigurationException as error:
            asked = ", ".join(f"{name} {config['trainer'][name]}" for name in ("accelerator", "devices", "num_nodes"))
            raise ValueError(f"trainer: {error} Asked for: {asked}. `--trainer.accelerator auto` takes what this machine has.") from error
        trainer._signal_connector = _OurSignals(trainer)
        environment = getattr(trainer.strategy, "cluster_environment", None)
        if isinstance(environment, SLURMEnvironment):
            # Lightning's own requeueing saves a checkpoint in the middle of an optimizer step; `sbatch --requeue` goes on from ours.
            environment.auto_requeue = False
        return trainer

    def instantiate_classes(self) -> None:
        """Also names the file in which runs from one start share their reference."""
        try:
            super().instantiate_classes()
        except TypeError as error:
            # A class that does not take what it was given; jsonargparse has checked the types that are stated.
            raise ValueError(str(error)) from error
        check_optimizer(self.model)
        if self.subcommand == "fit" and isinstance(self.model, Unlearning) and self.model.needs_reference:
            name = f"{reference_key(self.resolved(), computed_with(self.resolved(), self.trainer))}.safetensors"
            self.model.reference_file = ReferenceFile(self.run_folder.parent / ".references" / name)

    def _plugins(self) -> list[Any]:
        given = self._get(self.config_init, "trainer").get("plugins") or []
        plugins = list(given) if isinstance(given, list) else [given]
        return plugins if any(isinstance(plugin, CheckpointIO) for plugin in plugins) else [*plugins, WholeFileIO()]

    def _check_probe_names(self) -> None:
        configured = self._get(self.config_init, "trainer").get("callbacks") or []
        names = [c.name for c in (configured if isinstance(configured, list) else [configured]) if isinstance(c, callbacks.Probe)]
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise ValueError(f"Several probes are named {twice[0]!r}, and would overwrite each other's records: set their init_args.name.")

    def _prepare_subcommand_kwargs(self, subcommand: str) -> dict[str, Any]:
        """Checkpoints are read as tensors and plain values: a pickle in one is refused and never executed."""
        arguments = super()._prepare_subcommand_kwargs(subcommand)
        if arguments.get("weights_only") is False:
            raise ValueError(
                "weights_only is false, but a checkpoint is never unpickled here, as that would execute what it says. Leave it out."
            )
        return {**arguments, "weights_only": True}

    def _run_subcommand(self, subcommand: str) -> None:
        with locked(self.run_folder) if self.trainer.is_global_zero else nullcontext():
            if self.trainer.is_global_zero:
                remove_left_overs(self.run_folder)
            if subcommand == "fit":
                self._refuse_another_runs_folder()
                if is_finished(self.run_folder):
                    refuse_changed(self.run_folder)
                    rank_zero_info(f"This run is finished already: {self.run_folder}. Delete the folder to train it again.")
                    if self.trainer.is_global_zero:
                        # Left over where it was killed between its last two writes.
                        shutil.rmtree(self.run_folder / "checkpoints", ignore_errors=True)
                    return
                self._go_on_where_it_stopped()
            self._name_loggers()
            super()._run_subcommand(subcommand)
        rank_zero_info(f"{'Run' if subcommand == 'fit' else 'Measured'}: {self.run_folder}")

    def _refuse_another_runs_folder(self) -> None:
        try:
            there = read_run(self.run_folder)
        except FileNotFoundError:
            return
        key = there["key"]
        if there["status"] == "cut_short":
            rank_zero_info(f"{self.run_folder} holds a run that {there['cut_short_by']} cut short; this one takes its place.")
            if self.trainer.is_global_zero:
                clear(self.run_folder)
        elif key != self.key:
            raise ValueError(
                f"{self.run_folder} holds a run with other settings or data (key {key[:12]}, this one's is {self.key[:12]}). "
                "Choose another --run_folder, or delete it."
            )

    def _go_on_where_it_stopped(self) -> None:
        last = self.run_folder / "checkpoints" / "last.ckpt"
        if last.is_file() and self.config_init["fit"].get("ckpt_path") is None:
            self.config_init["fit"]["ckpt_path"] = str(last)

    def _name_loggers(self) -> None:
        """Done late, when the folder is this process's alone: a run that goes on is the same run to its loggers."""
        logged = None
        if self.subcommand == "fit" and self.trainer.is_global_zero:
            checkpoint = self.config_init["fit"].get("ckpt_path")
            logged = logged_run(self.run_folder, self.key, Path(checkpoint) if checkpoint else None)
            self.trainer.callbacks.append(GoesOnInLoggers(logged.goes_on_at))  # type: ignore[attr-defined]
        self.trainer.loggers = run_loggers(self.run_folder, self.resolved(), self.wandb_settings, logged)


def run(
    args: list[str] | dict[str, Any] | None = None,
    callbacks: Sequence[pl.Callback] = (),
    wandb: Mapping[str, Any] | None = None,
    resolved: dict[str, Any] | None = None,
    cli: type[UnlearnCLI] = UnlearnCLI,
) -> UnlearnCLI:
    """Runs one command: arguments as on the command line, or as nested dicts.

    Args:
        args: the command; null for the process's own arguments.
        callbacks: added to those of the configuration, without being part of it.
        wandb: how the run is called in W&B and other loggers: name, group, job_type and tags.
        resolved: the whole configuration, where it is known already; saves working it out again.
        cli: the command line class.
    """
    logging.getLogger("lightning.pytorch.utilities.rank_zero").addFilter(lambda r: "💡" not in r.getMessage())
    for pattern in QUIET:
        warnings.filterwarnings("ignore", pattern)
    cli = type(cli.__name__, (cli,), {"extra_callbacks": callbacks, "wandb_settings": wandb or {}, "known_config": resolved})
    # From Python, a bad argument is an exception and not the end of the process.
    settings = {"default_env": True, "env_prefix": "UNLEARN", "exit_on_error": not isinstance(args, Mapping)}
    verbs = {verb: dict(settings) for verb in UnlearnCLI.subcommands()}
    return cli(
        CausalLMModule, StageData, subclass_mode_model=True, subclass_mode_data=True, auto_configure_optimizers=False,
        save_config_callback=None, seed_everything_default=0, load_from_checkpoint_support=False, trainer_defaults=TRAINER_DEFAULTS,
        parser_class=Parser, parser_kwargs={"prog": "unlearn", **settings, **verbs}, args=args,
    )  # fmt: skip


def fill_seeds(config: Any, seed: int) -> None:
    """Gives seeds that were left null the run's own, so that the written configuration says all."""
    model = config["model"]["init_args"]
    retain = [model["retain"]["data"]["init_args"]] if model.get("retain") else []
    for owner in (model["backbone"], config["data"]["init_args"], *retain):
        if owner["seed"] is None:
            owner["seed"] = seed
