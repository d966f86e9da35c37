"""A study's settings below the top, as flags: any depth, merged into what the files say.

rest, changes = settings_flags(["--seeds=[2]", "--unlearning.model.init_args.optimizer.init_args.lr=1e-4"])
# rest: ["--seeds=[2]"], changes: {"unlearning": {"model": {"init_args": {"optimizer": {"init_args": {"lr": 1e-4}}}}}}

jsonargparse takes such a flag for one key of a free mapping, and would replace the whole `model` by it.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

import yaml
from jsonargparse import Namespace

from unlearn_lightning.cli.arguments import without_null_words
from unlearn_lightning.records.yaml_files import load_yaml
from unlearn_lightning.study.study_config import Settings, merged
from unlearn_lightning.study.study_file import NAMED, tell_left_behind

# Between the names of settings; one between digits belongs to a name such as `npo-1.5e-4`.
DOT = re.compile(r"(?<!\d)\.|\.(?!\d)")
# The free mappings of `StudyConfig`.
FREE = (*NAMED, "backbone", "base", "common", "fine_tuning", "unlearning")


def settings_flags(arguments: Sequence[str]) -> tuple[list[str], Settings]:
    """The other arguments, and what flags such as `--unlearning.trainer.max_epochs=2` (or without `=`) say, later ones winning.

    Raises:
        ValueError: a flag has no value, or one that is not YAML.
    """
    rest: list[str] = []
    changes: Settings = {}
    waiting = iter(arguments)
    for argument in waiting:
        key, equals, text = argument.removeprefix("--").partition("=")
        first, *below = DOT.split(key)
        if not argument.startswith("--") or first not in FREE or not below:
            if argument.startswith("--"):
                # What is set as a whole later takes the place of what was set in it before.
                changes.pop(first, None)
            rest.append(argument)
            continue
        value = text if equals else next(waiting, None)
        if value is None:
            raise ValueError(f"{argument} needs a value, such as {argument}=1e-4.")
        nested: Any = _value(key, value)
        for name in reversed(below):
            nested = {name: nested}
        changes = merged(changes, {first: nested})
    return rest, changes


def _value(key: str, text: str) -> Any:
    """The text as YAML; 1e-4, which YAML reads as a word, is a number here as everywhere on the command line."""
    try:
        value = without_null_words(load_yaml(text))
    except yaml.YAMLError:
        raise ValueError(f"--{key} has the value {text!r}, which is not YAML: put a word with signs in it in quotes of its own.") from None
    if isinstance(value, str):
        with suppress(ValueError):
            return float(value)
    return value


def change(parsed: Namespace, changes: Settings) -> None:
    """Merges the changes into parsed settings; a stage, objective, probe or path that becomes null is left out."""
    for name, value in changes.items():
        tell_left_behind("unlearn study", {name: parsed[name] or {}}, {name: value})
        whole = merged(parsed[name] or {}, value)
        parsed[name] = {k: v for k, v in whole.items() if v is not None} if name in NAMED else whole
