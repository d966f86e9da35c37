"""A study's YAML file, which may build on another one and then states only what is different.

    like: demo.yaml                       # beside this file, or a shipped one; merged under it, and may itself be like another
    name: demo_cosine
    objectives:
      simnpo: null                        # left out
      ga: {model: {init_args: {lr_scheduler: {class_path: Cosine, init_args: {warmup: 0.02}}}}}

Mappings are merged and lists replaced (`study_config.merged`). An entry of `stages`, `objectives`, `probes`, `paths` or `relearning`
that is null is left out. Another class starts without the settings of the one that it replaces; a line says which these were, also
where a stage or an objective replaces a class of `common`, `fine_tuning` or `unlearning`.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonargparse
import yaml

from unlearn_lightning.cli.config_files import shipped
from unlearn_lightning.records.yaml_files import read_mapping
from unlearn_lightning.study.study_config import Settings, StudyConfig, merged

LIKE = "like"
# Mappings whose keys are names of ours and not of settings, so that null can only mean: not this one.
NAMED = ("stages", "objectives", "probes", "paths", "relearning")


def read_study_file(path: Path) -> Settings:
    """The settings of a study file, with those of the files it is like under them.

    Raises:
        FileNotFoundError: there is no such file, or none that it is like.
        ValueError: a file is no mapping, or files are like each other in a circle; the message names them.
    """
    settings: Settings = {}
    for file, layer in reversed(_chain(path)):
        tell_left_behind(file.name, settings, layer)
        settings = merged(settings, layer)
    for name in NAMED:
        if isinstance(settings.get(name), dict):
            settings[name] = {entry: value for entry, value in settings[name].items() if value is not None}
    return settings


def tell_left_behind(who: str, old: Settings, new: Settings) -> None:
    """Prints a line for each class of `new` that replaces another one in `old` and does not give its settings anew."""
    for line in _left_behind(old, new):
        print(f"{who}: {line}", file=sys.stderr)


def tell_not_shared(config: StudyConfig) -> None:
    """Prints a line for each class of a stage or an objective that replaces the one that all of them share, with what it leaves behind."""
    entries = {"stages": (config.fine_tuning, config.stages), "objectives": (config.unlearning, config.objectives)}
    for kind, (shared, named) in entries.items():
        who: dict[str, list[str]] = {}
        for name, own in named.items():
            for line in _left_behind(merged(config.common, shared), own):
                who.setdefault(line, []).append(name)
        for line, names in who.items():
            print(f"{kind} {', '.join(names)}: {line}", file=sys.stderr)


def _left_behind(old: Settings, new: Settings, where: str = "") -> Iterator[str]:
    for key, value in new.items():
        before, place = old.get(key), f"{where}.{key}" if where else str(key)
        if not isinstance(value, dict) or not isinstance(before, dict):
            continue
        classes = [settings.get("class_path") for settings in (before, value)]
        if None not in classes and classes[0] != classes[1]:
            # Names alone, since a value may be a secret.
            lost = list(_not_given(before.get("init_args") or {}, value.get("init_args") or {}))
            if lost:
                yield f"{place} is {classes[1]} in the place of {classes[0]}, whose settings do not go over to it: {', '.join(lost)}"
        else:
            yield from _left_behind(before, value, place)


def _not_given(old: Settings, new: Settings, where: str = "") -> Iterator[str]:
    """The names of the settings that only `old` has, at any depth."""
    for name, value in old.items():
        place = f"{where}.{name}" if where else str(name)
        if name not in new:
            yield place
        elif isinstance(value, dict) and isinstance(new[name], dict):
            yield from _not_given(value, new[name], place)


def _chain(path: Path) -> list[tuple[Path, Settings]]:
    """The file with its own settings, then the files that it is like with theirs, nearest first."""
    seen: list[Path] = []
    found: list[tuple[Path, Settings]] = []
    following: Path | None = path
    while following is not None:
        place, named_by = following.resolve(), seen[-1] if seen else None
        if place in seen:
            circle = " -> ".join(file.name for file in [*seen[seen.index(place) :], place])
            raise ValueError(f"{path}: `{LIKE}` leads in a circle: {circle}. One of these files must stand for itself.")
        if not place.is_file():
            raise FileNotFoundError(
                f"{named_by} is like {following}, which is no file. `{LIKE}` names a study file, relative to the one it stands in."
                if named_by
                else f"There is no study file {path}."
            )
        seen.append(place)
        settings, like = _read(place)
        found.append((place, settings))
        following = _named(like, place.parent) if like is not None else None
    return found


def _named(like: str, folder: Path) -> Path:
    """The file beside the one that names it, or else the shipped one of that name."""
    beside = folder / like
    return beside if beside.is_file() else shipped(like) or beside


def _read(path: Path) -> tuple[Settings, str | None]:
    content = read_mapping(path)
    like = content.pop(LIKE, None)
    if like is not None and not isinstance(like, str):
        raise ValueError(f"{path}: `{LIKE}` is the name of one study file, got {like!r}.")
    return content, like


class StudyFile(jsonargparse.ActionConfigFile):
    """`--config FILE`: the file's settings, those of the files it is like included."""

    def __call__(self, parser: Any, cfg: Any, values: Any, option_string: str | None = None) -> None:
        """Hands the merged settings over as text; a file that stands for itself goes as it is, so that errors name it."""
        try:
            if isinstance(values, str) and Path(values).is_file() and _read(Path(values))[1] is not None:
                values = yaml.safe_dump(read_study_file(Path(values)), sort_keys=False)
        except (OSError, ValueError) as error:
            raise TypeError(str(error)) from error
        super().__call__(parser, cfg, values, option_string)
