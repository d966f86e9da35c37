"""Configurations of runs and studies as flat settings, so that they can be compared.

flatten({"model": {"beta": 0.5}})       # {"model.beta": "0.5"}
"""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from unlearn_lightning.records import yaml_files


def flatten(config: Any, prefix: str = "") -> dict[str, str]:
    """{"model": {"beta": 0.5}} -> {"model.beta": "0.5"}; lists count as positions."""
    if isinstance(config, Mapping):
        pairs = [(str(key), value) for key, value in config.items()]
    elif isinstance(config, list):
        pairs = [(str(index), value) for index, value in enumerate(config)]
    else:
        return {prefix: str(config)}
    return {name: text for key, value in pairs for name, text in flatten(value, f"{prefix}.{key}" if prefix else key).items()}


def read_yaml(path: Path) -> Any:
    """What a YAML file holds; an empty mapping when there is none."""
    return yaml_files.read_yaml(path) or {} if path.is_file() else {}


def is_place(setting: str, found: Mapping[str, list[str]]) -> bool:
    """Whether the values of a setting name places or seeds, in which runs differ without being different experiments; data are none."""
    name = setting.rsplit(".", 1)[-1]
    if name.endswith("source"):
        return False
    return name == "seed_everything" or any("/" in value or "\\" in value for values in found.values() for value in values)


def file_names(values: Iterable[str]) -> dict[str, str]:
    """Paths by as much of their ends as tells them apart; other values as they are."""
    values = list(dict.fromkeys(values))
    ends = {value: value.replace("\\", "/").split("/") for value in values}
    for length in range(1, max(map(len, ends.values()), default=0) + 1):
        short = {value: "/".join(parts[-length:]) for value, parts in ends.items()}
        if len(set(short.values())) == len(values):
            return short
    return {value: value for value in values}
