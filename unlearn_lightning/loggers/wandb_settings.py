"""Where W&B runs go, the same for training runs and for reports; and whether they are trials of a sweep."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml


def is_disabled() -> bool:
    """Whether nothing is to be logged: WANDB_MODE=disabled."""
    return os.environ.get("WANDB_MODE") == "disabled"


def is_offline() -> bool:
    """Whether runs stay on this disk: with WANDB_MODE=offline, and without an account (no WANDB_API_KEY, no netrc entry)."""
    mode = os.environ.get("WANDB_MODE")
    has_account = bool(os.environ.get("WANDB_API_KEY")) or "wandb.ai" in _netrc()
    # "dryrun" is the old name, which Lightning sets in this process once a logger is offline.
    return mode in ("offline", "dryrun") or (mode is None and not has_account)


def project() -> str:
    """The W&B project: WANDB_PROJECT, or unlearn_lightning."""
    return os.environ.get("WANDB_PROJECT", "unlearn_lightning")


def _netrc() -> str:
    path = Path(os.environ.get("NETRC", Path.home() / ".netrc"))
    return path.read_text(encoding="utf-8") if path.is_file() else ""


TRIAL = ("WANDB_RUN_ID", "WANDB_SWEEP_ID", "WANDB_SWEEP_PARAM_PATH")
"""What a sweep's agent sets for the command that it starts: the trial's run, its sweep, and a file with its parameters."""


def in_trial() -> bool:
    """Whether this process is a trial of a W&B sweep."""
    return bool(os.environ.get("WANDB_SWEEP_ID"))


def usual_folder() -> Path:
    """Where runs and studies go that are given no folder: `runs`, and in a trial `runs/sweeps/<sweep>`, where its siblings go."""
    return Path("runs", "sweeps", os.environ["WANDB_SWEEP_ID"]) if in_trial() else Path("runs")


def trial_name() -> str:
    """`-<id of the trial's run>`, to tell trials' studies of one name apart; empty elsewhere."""
    return f"-{os.environ.get('WANDB_RUN_ID', '')}" if in_trial() else ""


def trial_settings() -> dict[str, Any]:
    """Settings that make a W&B run the trial's own; none outside of a sweep."""
    named = {"run_id": "WANDB_RUN_ID", "sweep_id": "WANDB_SWEEP_ID"}
    return {setting: os.environ[variable] for setting, variable in named.items() if in_trial() and variable in os.environ}


def trial_parameters() -> dict[str, Any]:
    """The trial's parameters by their names in the sweep; W&B reads their file once a process, which here came before."""
    path = os.environ.get("WANDB_SWEEP_PARAM_PATH", "") if in_trial() else ""
    content = yaml.safe_load(Path(path).read_text(encoding="utf-8")) if path and Path(path).is_file() else {}
    return {name: entry["value"] for name, entry in content.items() if isinstance(entry, dict) and "value" in entry}


@contextmanager
def beside_the_trial() -> Iterator[None]:
    """Context for the runs of a study that is a trial: they are W&B runs of their own and must not take the trial's id."""
    saved = {variable: os.environ.pop(variable) for variable in TRIAL if variable in os.environ}
    try:
        yield
    finally:
        os.environ.update(saved)
