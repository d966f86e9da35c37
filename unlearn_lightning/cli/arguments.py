"""A command's words brought into an order and a spelling that mean what they say, before jsonargparse reads them.

prepared(["fit", "--data.source", "mine.json", "-c", "objectives/npo.yaml"])
# ["fit", "--config", ".../configs/objectives/npo.yaml", "--data.source", "mine.json"]

jsonargparse lets a file overwrite the flags before it, hands a nested null on as the word None, and applies a setting to whatever class
was named so far. Here files come first, null is null, and a class comes before its settings.
"""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import jsonargparse
import yaml

from unlearn_lightning.cli.config_files import find
from unlearn_lightning.records.yaml_files import check_limits, read_mapping
from unlearn_lightning.runs.moved import is_of_run, relocated

# With every abbreviation that argparse takes: `--c` could also be --checkpoint_every_n_steps.
CONFIG = re.compile(r"(?:--co(?:n(?:f(?:i(?:g)?)?)?)?|-c)(?:=(?P<value>.*))?|-c(?P<joined>[^=].*)", re.S)
# The settings whose value may be a class, and below which other settings of the line may stand. Lists are left in their order.
CLASS = re.compile(r"--(model|data)((\.init_args)?\.\w+)*")
CLASS_NAME = re.compile(r"(?!null$|true$|false$)[A-Za-z_][\w.]*")
NULLS = ("null", "None")
NEGATIVE = re.compile(r"-\.?\d[\d.]*(?:[eE][-+]?\d+)?")


def prepared(arguments: Iterable[str]) -> list[str]:
    """The same command with its configuration files first, found by name, and every value in a spelling that is read as it is meant.

    Raises:
        FileNotFoundError: there is no such configuration.
        ValueError: it is not YAML that can be read.
    """
    _limit_yaml()
    files, rest = _split(list(arguments))
    verb, flags = (rest[:1], rest[1:]) if rest and not rest[0].startswith("-") else ([], rest)
    found = [word for name in files for word in ("--config", name if "{" in name else _file(find(name)))]
    # With a brace it is a configuration itself and no name.
    return [*verb, *found, *classes_first([spelled(word) for word in _joined(flags)])]


def _file(path: Path) -> str:
    """The file, once it is seen to be readable; the configuration in it where it is a run's whose folder was moved."""
    content = read_mapping(path)
    if is_of_run(path) and (moved := relocated(content, path.parent)) != content:
        return json.dumps(moved)
    return str(path)


_yaml = jsonargparse.get_loader("yaml")


def _limit_yaml() -> None:
    """Has jsonargparse read YAML, of files, flags and variables, within limits."""
    jsonargparse.set_loader("yaml", _limited, exceptions=(yaml.YAMLError,))


def _limited(text: str) -> Any:
    check_limits(text)
    try:
        return _yaml(text)
    except (RecursionError, ValueError, TypeError, OverflowError) as error:
        raise yaml.YAMLError(f"{type(error).__name__}: {error}") from None


def _split(words: Sequence[str]) -> tuple[list[str], list[str]]:
    """Separates the names of the configuration files from the other words, and returns both."""
    files: list[str] = []
    rest: list[str] = []
    waiting = iter(words)
    for word in waiting:
        flag = CONFIG.fullmatch(word)
        if flag is None:
            rest.append(word)
            continue
        name = flag["joined"] if flag["joined"] is not None else flag["value"] if flag["value"] is not None else next(waiting, None)
        if name is None:
            raise ValueError(f"{word} needs the name of a configuration, such as {word} configs/stages/tofu.yaml.")
        files.append(name)
    return files, rest


def _joined(flags: Sequence[str]) -> list[str]:
    """Writes `--name value` as `--name=value` where the value is spelled anew, or begins as a flag does."""
    joined: list[str] = []
    for word in flags:
        before = joined[-1] if joined else ""
        anew = NEGATIVE.fullmatch(word) or (not word.startswith("--") and restated(word) != word)
        if before.startswith("--") and "=" not in before and anew:
            joined[-1] = f"{before}={word}"
        else:
            joined.append(word)
    return joined


def spelled(word: str) -> str:
    """Restates the value of a word of the form `--name=value`, and returns any other word as it is."""
    name, equals, value = word.partition("=")
    return f"{name}={restated(value)}" if equals and name.startswith("--") else word


def restated(value: str) -> str:
    """Turns null, a list or a mapping as Python spells it into JSON: W&B's agent and jsonargparse's inner parsers write `['a', None]`."""
    if value in NULLS:
        return "null"
    if value[:1] not in ("[", "{", "("):
        return value
    try:
        return json.dumps(ast.literal_eval(value), ensure_ascii=False)
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        return value


def without_null_words(value: Any) -> Any:
    """Returns a value as YAML reads it, with the word None as null too."""
    if isinstance(value, dict):
        return {key: without_null_words(one) for key, one in value.items()}
    if isinstance(value, list):
        return [without_null_words(one) for one in value]
    return None if value == "None" else value


def classes_first(flags: Sequence[str]) -> list[str]:
    """Moves a flag that names a class before the earlier flags below it: `--model.beta 0.1 --model NPO` sets NPO's beta."""
    groups: list[list[str]] = []
    for word in flags:
        if word.startswith("--") or not groups:
            groups.append([word])
        else:
            groups[-1].append(word)
    for number, group in enumerate(groups):
        name, value = _name(group), group[0].partition("=")[2] or "".join(group[1:])
        if not CLASS.fullmatch(name) or not CLASS_NAME.fullmatch(value):
            continue
        below = (place for place in range(number) if _name(groups[place]).startswith(f"{name}."))
        if (first := next(below, None)) is not None:
            groups.insert(first, groups.pop(number))
    return [word for group in groups for word in group]


def _name(group: Sequence[str]) -> str:
    """Returns the setting that a flag names; `--model.class_path` is `--model`."""
    return group[0].partition("=")[0].removesuffix(".class_path")
