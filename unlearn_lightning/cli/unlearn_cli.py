"""The command line as a class: how arguments become a run, and how the run starts in its folder. `lightning_cli.run` calls it."""

from __future__ import annotations

import copy
import os
import re
import sys
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import yaml
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from lightning.pytorch.utilities.rank_zero import rank_zero_info

from unlearn_lightning.cli.arguments import prepared
from unlearn_lightning.cli.class_change import told_class_changes
from unlearn_lightning.cli.closing_table import print_closing
from unlearn_lightning.cli.early_checks import check_found, check_optimizer, check_settings
from unlearn_lightning.cli.environment import refuse_unknown
from unlearn_lightning.cli.measured_data import check_sources, fill_splits
from unlearn_lightning.cli.parser_internals import variables
from unlearn_lightning.cli.replaced_callbacks import replaced_callbacks
from unlearn_lightning.cli.secrets import refuse_secrets
from unlearn_lightning.cli.trainer_parts import as_list, check_probe_names, end_where_nothing_is_lost, probe_names, with_whole_files
from unlearn_lightning.loggers import wandb_settings
from unlearn_lightning.loggers.factory import ConfigToLoggers, run_loggers
from unlearn_lightning.loggers.resume import ResumeInLoggers, logged_run
from unlearn_lightning.loggers.run_name import described
from unlearn_lightning.loggers.wandb_logger import ToWandb
from unlearn_lightning.modules import Unlearning
from unlearn_lightning.modules.reference_file import ReferenceFile
from unlearn_lightning.records import is_finished, locked, read_run, remove_left_overs
from unlearn_lightning.runs.checkpoint import ResumeCheckpoint, delete_checkpoints
from unlearn_lightning.runs.computed_with import computed_with
from unlearn_lightning.runs.content import changed_records, refuse_changed
from unlearn_lightning.runs.cut_short import check_recorded
from unlearn_lightning.runs.measured import MEASURED, go_on_with_probes, probe_keys, tell_unmeasured
from unlearn_lightning.runs.resume import checkpoint_to_resume
from unlearn_lightning.runs.run_folder import check_writable, claim
from unlearn_lightning.runs.run_key import digest, reference_key, run_inputs
from unlearn_lightning.runs.run_recorder import MeasuredRecorder, RunRecorder

_SAID: set[str] = set()
"""Lines on a change of class that this process has printed."""


class UnlearnCLI(LightningCLI):
    """Fits or validates one run in its own run folder."""

    # Lightning 2.6 has no public hook around the seed, a subcommand's arguments, and the whole of a subcommand with the building of its
    # arguments: `_set_seed`, `_prepare_subcommand_kwargs` and `_run_subcommand` are extended below.

    run_folder: Path
    probe_keys: Mapping[str, str]
    # Whether a model that was measured before is left as it is; `validate` measures it again.
    keeps_finished = False
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
        """Offers fit, validate and test; predict is left to generation tools."""
        return {k: v for k, v in LightningCLI.subcommands().items() if k != "predict"}

    def parse_arguments(self, parser: LightningArgumentParser, args: Any) -> None:
        """Parses the words in an order in which flags win; says what a change of class keeps, and which callbacks are gone."""
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
        verb = self.config.get("subcommand")
        if verb:
            fill_splits(self.config[verb])
        if isinstance(args, list) and verb:
            replaced = replaced_callbacks(args, self.config[verb].trainer.callbacks)
            changes += [replaced] if replaced else []
        for change in changes:
            # The runs of a study, which are parsed one after the other, say it once.
            if isinstance(args, list) or change not in _SAID:
                rank_zero_info(change)
            _SAID.add(change)

    def _set_seed(self) -> None:
        try:
            super()._set_seed()
        except ValueError as error:
            raise ValueError(f"seed_everything: {error}.") from error

    def before_instantiate_classes(self) -> None:
        """Completes the seeds, and leaves the loggers to `_go_on_where_it_stopped`, which knows the run folder."""
        if self.subcommand is not None:
            config = self.config[self.subcommand]
            # `seed_everything: true` draws one, false leaves the global generators alone.
            seed = config.seed_everything
            fill_seeds(config, seed if type(seed) is int else int(os.environ.get("PL_GLOBAL_SEED", 0)))
            refuse_secrets(self.resolved())
            check_settings(self.resolved())
            check_sources(self.resolved())
            check_found(self.resolved())
            config.trainer.logger = False

    def resolved(self) -> dict[str, Any]:
        """Returns the whole configuration of this run as plain values."""
        if self.known_config is None:
            dumped = yaml.safe_load(self.parser.dump(self.config, skip_link_targets=False, skip_none=False, format="yaml"))
            self.known_config = dumped[self.subcommand] if self.subcommand else dumped
        return self.known_config

    def instantiate_trainer(self, **kwargs: Any) -> pl.Trainer:
        """Names the run folder and adds what records the run."""
        config = self.resolved()
        check_recorded(config)
        keys = probe_keys(config)
        inputs, parents = run_inputs(config)
        self.key = digest(inputs)
        if self.subcommand != "fit":
            # What comes out is what the probes say.
            self.key = digest([MEASURED, self.subcommand, self.key, keys])
        model, data = type(self.model).__name__, type(self.datamodule).__name__
        verb = "" if self.subcommand == "fit" else f"{self.subcommand}-"
        self.run_folder = Path(config["run_folder"] or wandb_settings.usual_folder() / f"{verb}{model}-{data}-{self.key[:12]}").absolute()
        if self.subcommand != "fit" and (self.run_folder / "run.json").is_file() and read_run(self.run_folder)["kind"] != MEASURED:
            raise ValueError(
                f"{self.run_folder} holds a training run, whose records `{self.subcommand}` would overwrite: set another --run_folder, or "
                f"measure it with `unlearn validate {self.run_folder}`."
            )
        check_writable(self.run_folder)
        trainer_settings = self.config_init[self.subcommand].trainer
        check_probe_names(as_list(trainer_settings.get("callbacks")))
        trained = "unlearn" if isinstance(self.model, Unlearning) else "stage"
        identity = {
            "kind": trained if self.subcommand == "fit" else MEASURED,
            "model": model, "data": data, "seed": config["seed_everything"], "key": self.key, "parents": parents,
        }  # fmt: skip
        if self.subcommand != "fit":
            identity["origins"] = inputs["origins"]
        elif isinstance(self.model, Unlearning):
            identity["local"] = self.model.local
        own = [*self.extra_callbacks, ConfigToLoggers(config), ToWandb(self.run_folder)]
        if self.subcommand == "fit":
            kwargs["plugins"] = with_whole_files(as_list(trainer_settings.get("plugins")))
            own.append(RunRecorder(self.run_folder, config, identity, keys))
        else:
            own.append(MeasuredRecorder(self.run_folder, config, identity, keys))
        every = config["checkpoint_every_n_steps"]
        if self.subcommand == "fit" and every and config["trainer"]["enable_checkpointing"] is not False:
            own.append(ResumeCheckpoint(self.run_folder, every))
        elif self.subcommand == "fit":
            kwargs["enable_checkpointing"] = False
        self.probe_keys = keys
        return self.make_trainer(own, **kwargs)

    def make_trainer(self, own: list[pl.Callback], **settings: Any) -> pl.Trainer:
        """The Trainer of this run folder, with the callbacks that belong to the run beside the configured ones."""
        config = self.resolved()
        self.trainer_defaults = {**self.trainer_defaults, "callbacks": own}
        try:
            trainer = super().instantiate_trainer(**settings, default_root_dir=str(self.run_folder), logger=False)
        except MisconfigurationException as error:
            if not re.search("accelerator|device|gpu|cuda|node", str(error), re.IGNORECASE):
                raise ValueError(f"trainer: {error}") from error
            asked = ", ".join(f"{name} {config['trainer'][name]}" for name in ("accelerator", "devices", "num_nodes"))
            raise ValueError(f"trainer: {error} Asked for: {asked}. `--trainer.accelerator auto` takes what this machine has.") from error
        end_where_nothing_is_lost(trainer)
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
            claim(self.run_folder, self.key, self.trainer.is_global_zero)
            if subcommand != "fit" and self.keeps_finished and is_finished(self.run_folder):
                return
            if subcommand == "fit" and is_finished(self.run_folder):
                refuse_changed(self.run_folder, self.key)
                if changed := changed_records(self.run_folder):
                    rank_zero_info(f"Not as this run wrote it: {', '.join(changed[:5])}{' ...' if changed[5:] else ''}.")
                rank_zero_info(f"This run is finished already: {self.run_folder}. Delete the folder to train it again.")
                tell_unmeasured(self.run_folder, self.probe_keys)
                if self.trainer.is_global_zero:
                    # Left over where it was killed between its last two writes.
                    delete_checkpoints(self.run_folder)
                self._tell_end()
                return
            if subcommand == "fit":
                go_on_with_probes(self.run_folder, self.probe_keys, self.trainer.is_global_zero)
            self._go_on_where_it_stopped()
            super()._run_subcommand(subcommand)
            for recorder in self.trainer.callbacks:  # type: ignore[attr-defined]
                if isinstance(recorder, MeasuredRecorder):
                    recorder.finish(self.trainer, self.model)
        self._tell_end()
        rank_zero_info(f"{'Run' if subcommand == 'fit' else 'Measured'}: {self.run_folder}")

    def _tell_end(self) -> None:
        if self.trainer.is_global_zero:
            print_closing(self.run_folder, probe_names(self.trainer.callbacks), trained=self.subcommand == "fit")  # type: ignore[attr-defined]

    def _go_on_where_it_stopped(self) -> None:
        """Looks for a checkpoint and opens the loggers, late, when the folder is this process's alone (runs/resume.py)."""
        logged = None
        if self.subcommand == "fit":
            settings = self.config_init["fit"]
            settings["ckpt_path"] = checkpoint = checkpoint_to_resume(self.run_folder, settings.get("ckpt_path"))
            if self.trainer.is_global_zero:
                logged = logged_run(self.run_folder, self.key, Path(checkpoint) if checkpoint else None)
            resume = ResumeInLoggers(checkpoint, logged.goes_on_at if logged else None)
            self.trainer.callbacks.append(resume)  # type: ignore[attr-defined]
        about = self.wandb_settings or described(self.resolved(), str(self.subcommand), self.run_folder)
        self.trainer.loggers = run_loggers(self.run_folder, self.resolved(), about, logged)


def fill_seeds(config: Any, seed: int) -> None:
    """Gives seeds that were left null the run's own, so that the written configuration says all."""
    model = config["model"]["init_args"]
    retain = [model["retain"]["data"]["init_args"]] if model.get("retain") else []
    for owner in (model["backbone"], config["data"]["init_args"], *retain):
        if owner["seed"] is None:
            owner["seed"] = seed
