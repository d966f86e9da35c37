"""What the command line gives the Trainer of a run beside its configuration: how it ends early and how it writes checkpoints."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import lightning.pytorch as pl
from lightning.fabric.plugins import CheckpointIO
from lightning.fabric.plugins.environments import SLURMEnvironment
from lightning.pytorch.trainer.connectors.signal_connector import _SignalConnector

import callbacks
from unlearn_lightning.preemption import listen
from unlearn_lightning.runs.checkpoint import WholeFileIO


def as_list(given: Any) -> list[Any]:
    """Returns the value of a setting as a list: the setting may hold one thing, several or none."""
    return list(given) if isinstance(given, list) else [given] if given else []


def with_whole_files(plugins: list[Any]) -> list[Any]:
    """Returns the configured plugins, and adds the one that writes whole checkpoints unless one of them writes checkpoints."""
    return plugins if any(isinstance(plugin, CheckpointIO) for plugin in plugins) else [*plugins, WholeFileIO()]


def probe_names(configured: list[Any]) -> list[str]:
    """The names of those of the callbacks that are probes."""
    return [callback.name for callback in configured if isinstance(callback, callbacks.Probe)]


def check_probe_names(configured: list[Any]) -> None:
    """Refuses probes that would overwrite each other's records.

    Raises:
        ValueError: two of these callbacks are probes of one name.
    """
    names = probe_names(configured)
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise ValueError(f"Several probes are named {twice[0]!r}, and would overwrite each other's records: set their init_args.name.")


def end_where_nothing_is_lost(trainer: pl.Trainer) -> None:
    """Replaces Lightning's answers to signals and to SLURM's time limit by ours (preemption.py, runs/checkpoint.py).

    Lightning 2.6 lets nobody name another handler of signals: a Trainer has this one, under this private name.
    """
    trainer._signal_connector = _OurSignals(trainer)
    environment = getattr(trainer.strategy, "cluster_environment", None)
    if isinstance(environment, SLURMEnvironment):
        # Lightning's own requeueing saves a checkpoint in the middle of an optimizer step; `sbatch --requeue` goes on from ours.
        environment.auto_requeue = False


class _OurSignals(_SignalConnector):
    """Lightning's own handler of SIGTERM ends a run in the middle of an optimizer step without a checkpoint, and forgets one at its end."""

    _restore: Callable[[], None] | None = None

    def register_signal_handlers(self) -> None:
        """Listens for signals until `teardown`, unless the process listens already."""
        self._restore = listen()

    def teardown(self) -> None:
        """Stops listening for signals; Lightning also calls this where nothing was registered."""
        if self._restore is not None:
            self._restore()
