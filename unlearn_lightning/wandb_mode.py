"""Where W&B runs go, the same for training runs and for reports."""

import os
from pathlib import Path


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
