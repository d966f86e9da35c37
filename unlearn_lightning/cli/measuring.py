"""A finished run is measured on its saved models, at its start and its end, without training anything again.

    measure(Path("runs/forgotten"), config)          # the probes of `config` that the run has no records of

The start is the model that the run began with, and the end is its result. Each is built as the run built it, so that a probe finds what it
would have found during training. Records and metrics.csv of the run get what is measured; run.json says that it is there.
"""

from __future__ import annotations

import gc
from collections.abc import Collection, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import fields
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.cli import LightningCLI
from lightning.pytorch.utilities.rank_zero import rank_zero_info, rank_zero_only

from callbacks import Probe
from unlearn_lightning.cli.lightning_cli import run
from unlearn_lightning.cli.unlearn_cli import UnlearnCLI
from unlearn_lightning.loggers.factory import run_loggers
from unlearn_lightning.loggers.resume import LoggedRun, logged_run
from unlearn_lightning.records import is_finished, locked, metric_key, read_json, read_run, record_path
from unlearn_lightning.records.recovery import original_name
from unlearn_lightning.runs.content import changed_records, refuse_changed
from unlearn_lightning.runs.measured import (
    MEASURED,
    ResultBackbone,
    changed,
    delete_records,
    note_measured,
    probe_keys,
    probes_of,
    refuse_changed_probes,
    result_backbone,
    unmeasured,
)
from unlearn_lightning.runs.moved import CONFIG, read_config
from unlearn_lightning.sources.readers import NoDataFile

CHANGED = (
    "Give it another name (`name`, or its key in a study's `probes`), so that both stand beside each other, or have its former records "
    "replaced by new ones of start and end: --measure NAME."
)


def measure(
    folder: Path,
    config: Mapping[str, Any],
    named: Collection[str] | None = None,
    replace: Collection[str] = (),
    about: Mapping[str, Any] | None = None,
) -> list[str]:
    """Measures what a finished run has no records of, and returns the names of the probes that were measured.

    Args:
        folder: the run folder.
        config: the run's whole configuration, with the probes that it is to have.
        named: only these probes, whose former records, if they were measured with other settings, are replaced; null for all.
        replace: these are measured also where they were measured already.
        about: how the run is called in loggers.

    Raises:
        ValueError: the run is not finished, its result was changed, or there is no such probe.
        ChangedProbe: a probe that is not named was measured with other settings.
    """
    if not is_finished(folder):
        raise ValueError(f"{folder} holds no finished run, so there is no result to measure: the command that began it ends it.")
    about_run = read_run(folder)
    if about_run["kind"] != MEASURED:
        refuse_changed(folder)
    keys = probe_keys(config)
    if unknown := set(named or ()) - keys.keys():
        raise ValueError(f"There is no probe {', '.join(sorted(unknown))}; there are {', '.join(keys) or 'none'}.")
    keys = {name: key for name, key in keys.items() if named is None or name in named}
    former = changed(folder, keys)
    if named is None:
        refuse_changed_probes(folder, keys, CHANGED)
    missing = unmeasured(folder, keys)
    todo = [name for name in keys if name in missing or name in replace]
    if not todo:
        return []
    if former and is_first():
        for name, steps in delete_records(folder, former).items():
            rank_zero_info(f"{name} has other settings than before: its records of {steps} steps are replaced by those of start and end.")
    _measure_ends(folder, {**config, "run_folder": str(folder), "ckpt_path": None}, todo, about_run["steps"], about)
    if is_first():
        note_measured(folder, {name: keys[name] for name in todo})
    return todo


def is_first() -> bool:
    """Whether this process is the one that writes, of several that measure together."""
    return int(getattr(rank_zero_only, "rank", 0) or 0) == 0


def trained_config(folder: Path) -> dict[str, Any]:
    """The configuration of a run that is to be measured.

    Raises:
        FileNotFoundError: there is no run.
        ValueError: its configuration was changed since.
    """
    if not (folder / "run.json").is_file() or not (folder / "config.yaml").is_file():
        raise FileNotFoundError(f"{folder} is no run folder: it has no run.json and config.yaml.")
    if CONFIG in changed_records(folder):
        raise ValueError(
            f"{folder / CONFIG} is not as its run wrote it, so that it does not say what would be measured: it was edited, damaged or is "
            f"another run's. Put it back; to measure with other settings, give them in the command."
        )
    return read_config(folder)


def _measure_ends(folder: Path, config: Mapping[str, Any], names: Sequence[str], end: int, about: Mapping[str, Any] | None) -> None:
    """Measures the model that a run began with and then its result; one model is gone before the next comes."""
    start = _validation(config, [probe for name, probe in probes_of(config).items() if name in names])
    cli = None
    try:
        cli = _measured_at(folder, start, 0, about)
    except FileNotFoundError as error:
        if not end or isinstance(error, NoDataFile):
            raise
        rank_zero_info(f"{folder}: the model that the run began with is gone, so that only its end is measured ({error})")
    if end:
        own = result_backbone(folder, config["model"]["init_args"]["backbone"])
        model = {**start["model"], "init_args": {**start["model"]["init_args"], "backbone": own}}
        _measured_at(folder, {**start, "model": model}, end, about, cli)


def measure_result(folder: Path, config: Mapping[str, Any], backbone: Mapping[str, Any], probes: Sequence[Any]) -> None:
    """Measures a run's result on a backbone that is loaded in another way than the run's own.

    Args:
        folder: the run folder.
        config: the run's whole configuration.
        backbone: the settings with which its result is loaded.
        probes: settings of what measures it, under names of their own.
    """
    settings = _validation({**config, "run_folder": str(folder), "ckpt_path": None}, probes)
    model = {**settings["model"], "init_args": {**settings["model"]["init_args"], "backbone": dict(backbone)}}
    _measured_at(folder, {**settings, "model": model}, read_run(folder)["steps"], None)


def _validation(config: Mapping[str, Any], probes: Sequence[Any]) -> dict[str, Any]:
    """A run's configuration with these probes alone, for `validate`."""
    quiet = {"enable_progress_bar": False, "enable_model_summary": False, "profiler": None}
    trainer = {**config["trainer"], **quiet, "callbacks": list(probes), "limit_val_batches": 1.0, "max_time": None}
    return {name: value for name, value in config.items() if name != "config"} | {"trainer": trainer, "verbose": False}


def _measured_at(folder: Path, settings: dict[str, Any], step: int, about: Mapping[str, Any] | None, cli: Any = None) -> Any:
    """Measures one model, with the command line object of the other one where there is one: making a parser takes half a second."""
    args = {"subcommand": "validate", "validate": settings}
    if cli is None:
        kind = type(_Measuring.__name__, (_Measuring,), {"measured": folder, "step": step})
        cli = run(args, wandb=about, resolved=settings, cli=kind)
    else:
        cli.once_more(args, settings, step)
    # A trainer and its module refer to each other, and both to the network.
    del cli.trainer, cli.model, cli.datamodule, cli.config_init
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    return cli


class AtStep(pl.Callback):
    """Has the probes of a validation measure a certain optimizer step of a run that was trained before.

    Args:
        folder: the run folder.
        step: the optimizer step after which the network was as it is now.
    """

    def __init__(self, folder: Path, step: int) -> None:
        self.folder, self.step = folder, step

    def on_validation_start(self, trainer: pl.Trainer, pl_module: Any) -> None:
        """Sets the step, and gives each probe what it found at the start of the run."""
        set_step(trainer, self.step)
        for probe in trainer.callbacks if self.step else ():  # type: ignore[attr-defined]
            if isinstance(probe, Probe):
                path = record_path(self.folder, original_name(probe.name), 0)
                found = read_json(path)["metrics"] if path.is_file() else None
                start = _Unknown() if found is None else {metric_key(probe.name, key.partition("/")[2]): v for key, v in found.items()}
                probe.load_state_dict({"start": start, "measured_step": -1})


class _Unknown(dict[str, float]):
    """The metrics of a start that could not be measured: what compares with them is no number."""

    def get(self, key: str, default: Any = None) -> Any:
        return float("nan")


def set_step(trainer: pl.Trainer, step: int) -> None:
    """Sets `trainer.global_step`, which Lightning counts in the progress of its optimizers."""
    trainer.fit_loop.epoch_loop.automatic_optimization.optim_progress.optimizer.step.total.completed = step


class _Measuring(UnlearnCLI):
    """Measures one model of a finished run in the run's own folder."""

    measured: Path
    step: int

    def instantiate_trainer(self, **kwargs: Any) -> pl.Trainer:
        """Records go into the run's folder."""
        self.run_folder = self.measured
        return self.make_trainer([AtStep(self.measured, self.step)], enable_checkpointing=False, **kwargs)

    def once_more(self, args: dict[str, Any], resolved: dict[str, Any], step: int) -> None:
        """Measures another model of the run, as `LightningCLI.__init__` does with the first."""
        self.step, self.known_config = step, resolved
        self.parse_arguments(self.parser, args)
        self._set_seed()
        self.before_instantiate_classes()
        self.instantiate_classes()
        self._run_subcommand("validate")

    def instantiate_classes(self) -> None:
        """At the run's end nothing fresh is put on the result."""
        super().instantiate_classes()
        if self.step:
            given = self.model.backbone
            self.model.backbone = ResultBackbone(**{field.name: getattr(given, field.name) for field in fields(given)})
        # Probes read their own examples; nothing is asked of the stage's.
        self.model.validation_step = lambda *_: None
        self.datamodule.val_dataloader = lambda: [0]

    def _run_subcommand(self, subcommand: str) -> None:
        with locked(self.run_folder) if self.trainer.is_global_zero else nullcontext():
            logged = LoggedRun(logged_run(self.run_folder, read_run(self.run_folder)["key"], None).id) if self.step else None
            # W&B takes no step that lies before those it has, so that the start is written to metrics.csv and the records alone.
            config = self.resolved() if self.step else {**self.resolved(), "trainer": {**self.resolved()["trainer"], "logger": False}}
            self.trainer.loggers = run_loggers(self.run_folder, config, self.wandb_settings, logged)
            LightningCLI._run_subcommand(self, subcommand)
