"""The LightningCLI behind `unlearn fit`, `validate` and `test`. A study calls it with a dict of arguments.

    run(["fit", "-c", "configs/stages/tofu.yaml", "-c", "configs/backbones/tiny-llama.yaml"])     # -> the run folder
    run({"subcommand": "fit", "fit": {"model": {...}, "data": {...}, "run_folder": "runs/a"}})

Importing `objectives` and `callbacks` once gives every class in them its short name in configs; nothing else lists them.
Modules of other packages join by an entry point (plugins.py).
"""

from __future__ import annotations

import logging
import pkgutil
import warnings
from collections.abc import Mapping, Sequence
from importlib import import_module
from typing import Any

import lightning.pytorch as pl

import callbacks
import unlearn_lightning.data
import unlearn_lightning.models.fsdp2_strategy
import unlearn_lightning.modules
from unlearn_lightning import objectives
from unlearn_lightning.cli.did_you_mean import Parser
from unlearn_lightning.cli.plugins import import_plugins
from unlearn_lightning.cli.unlearn_cli import UnlearnCLI
from unlearn_lightning.data import StageData
from unlearn_lightning.modules import CausalLMModule

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


# Of Lightning's own lines, advertisements and what a default says.
SAID_BY_ALL = ("💡", "was configured so 100% of the batches")


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
    logging.getLogger("lightning.pytorch.utilities.rank_zero").addFilter(lambda r: not any(part in r.getMessage() for part in SAID_BY_ALL))
    for pattern in QUIET:
        warnings.filterwarnings("ignore", pattern)
    parsed = {verb: UnlearnCLI.subcommands()[verb] for verb in _verbs(args)}
    own = {"extra_callbacks": callbacks, "wandb_settings": wandb or {}, "known_config": resolved}
    cli = type(cli.__name__, (cli,), {**own, "subcommands": staticmethod(lambda: parsed)})
    # From Python, a bad argument is an exception and not the end of the process.
    settings = {"default_env": True, "env_prefix": "UNLEARN", "exit_on_error": not isinstance(args, Mapping)}
    verbs = {verb: dict(settings) for verb in parsed}
    return cli(
        CausalLMModule, StageData, subclass_mode_model=True, subclass_mode_data=True, auto_configure_optimizers=False,
        save_config_callback=None, seed_everything_default=0, load_from_checkpoint_support=False, trainer_defaults=TRAINER_DEFAULTS,
        parser_class=Parser, parser_kwargs={"prog": "unlearn", **settings, **verbs}, args=args,
    )  # fmt: skip


def _verbs(args: list[str] | dict[str, Any] | None) -> list[str]:
    """Returns the verbs that need a parser: the given one, or all. Making one takes a tenth of a short run's time."""
    every = list(UnlearnCLI.subcommands())
    given = args.get("subcommand") if isinstance(args, Mapping) else args[0] if args else None
    return [given] if given in every else every
