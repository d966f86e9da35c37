"""A configuration is written into run folders and logged as a whole, so keys and passwords have no place in it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

SECRET = re.compile(r"(.*_)?(api_?key|password|secret)|(api|auth|access|hf)_token", re.I)
URL_WITH_PASSWORD = re.compile(r"\w+://[^/@\s]*:[^/@\s]+@")


def refuse_secrets(config: Any, path: str = "") -> None:
    """Finds a key or password in a configuration before it is written and logged.

    Raises:
        ValueError: there is one; the message names its place and not the secret.
    """
    pairs = config.items() if isinstance(config, Mapping) else enumerate(config) if isinstance(config, (list, tuple)) else ()
    for key, value in pairs:
        place = f"{path}.{key}" if path else str(key)
        if isinstance(value, str) and (SECRET.fullmatch(str(key)) or URL_WITH_PASSWORD.search(value)):
            raise ValueError(
                f"{place} holds a key or a password, which config.yaml and the loggers would show. Leave it out and set it in the "
                "environment (WANDB_API_KEY, HF_TOKEN, MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD)."
            )
        refuse_secrets(value, place)
