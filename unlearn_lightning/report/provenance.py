"""What was run: every run with its cost, the versions it ran under, and the settings in which sibling runs differ."""

import re
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from unlearn_lightning.report.study_data import RunRecord, Study
from unlearn_lightning.report.tables import Table

_Loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # The loader that is written in C is ten times as fast.


def run_table(study: Study) -> Table:
    """One row per run of the study, in the order in which they ran."""
    header = [
        "run",
        "kind",
        "status",
        "trained by",
        "data",
        "steps",
        "examples",
        "tokens",
        "truncated",
        "seconds",
        "tokens/s",
        "memory (MiB)",
    ]
    table = Table(header, [], first_number=5)
    for index, run in enumerate(study.runs):
        info = run.info
        memory = info.get("peak_memory_bytes")
        table.rows.append([
            run.name, run.kind, run.status, str(info.get("model", "–")), str(info.get("data", "–")),
            *(_number(info.get(name)) for name in ("steps", "examples", "tokens", "truncated")),
            _number(info.get("seconds"), 1), _number(info.get("tokens_per_second")), _number(memory / 2**20 if memory else None),
        ])  # fmt: skip
        if run.status != "finished":
            table.marked.add(index)
    return table


def totals(study: Study) -> str:
    """One sentence: how many runs, how long, how many tokens."""
    done = [run for run in study.runs if run.status == "finished"]
    kinds = Counter(run.kind for run in done)
    seconds = sum(run.info.get("seconds") or 0 for run in done)
    tokens = sum(run.info.get("tokens") or 0 for run in done)
    counted = " and ".join(f"{count} {kind} run{'s' if count > 1 else ''}" for kind, count in kinds.items()) or "No run"
    return f"{counted} finished of {len(study.runs)} planned: {_duration(seconds)} of training on {tokens:,} tokens, added over runs."


def versions(study: Study) -> str:
    """The software versions, with a count where runs differ."""
    seen: dict[str, Counter[str]] = {}
    for run in study.runs:
        for name, version in (run.info.get("versions") or {}).items():
            seen.setdefault(name, Counter())[str(version)] += 1
    parts = []
    for name, found in seen.items():
        several = [f"{version} ({count} run{'s' if count > 1 else ''})" for version, count in found.most_common()]
        parts.append(f"{name} {', '.join(several) if len(found) > 1 else next(iter(found))}")
    return " · ".join(parts)


def config_differences(study: Study, kind: str) -> Table:
    """The settings in which runs of one kind differ: a row per setting, a column per objective (or per last stage).

    Settings that only name places or derive from the run's position in the tree (seed, folders, adapters) are left out.
    """
    groups: dict[str, list[dict[str, str]]] = {}
    for run in study.finished(kind):
        if config := flatten(_config(run)):
            groups.setdefault(run.objective if kind == "unlearn" else (run.stages or ("base",))[-1], []).append(config)
    settings = dict.fromkeys(setting for group in groups.values() for config in group for setting in config)
    table = Table(["setting", *groups], [], first_number=1 + len(groups))
    collapsed: set[str] = set()
    for setting in settings:
        found = {name: list(dict.fromkeys(config.get(setting, "–") for config in group)) for name, group in groups.items()}
        if len({value for values in found.values() for value in values}) < 2 or is_place(setting, found):
            continue
        whole = _absent_part(setting, groups)
        if whole == setting:
            table.rows.append([setting, *(_values([_short(value) for value in values]) for values in found.values())])
        elif whole not in collapsed:  # Where a group lacks a whole part, such as its callbacks, one row says so.
            collapsed.add(whole)
            table.rows.append([whole, *(_contents(whole, group[0]) for group in groups.values())])
    return table


def _absent_part(setting: str, groups: Mapping[str, list[dict[str, str]]]) -> str:
    """The shortest prefix of the setting's name below which some group has nothing; the setting itself when that is all it lacks."""
    parts = setting.split(".")
    prefixes = [".".join(parts[:end]) for end in range(1, len(parts))]
    return next((part for part in prefixes if any(not _below(part, group[0]) for group in groups.values())), setting)


def _below(part: str, config: Mapping[str, str]) -> list[str]:
    return [value for name, value in config.items() if name == part or name.startswith(f"{part}.")]


def _contents(part: str, config: Mapping[str, str]) -> str:
    """The classes that stand directly in a part of a configuration, or its value, or how many settings it has."""
    depth = part.count(".") + 3
    named = [name for name in config if re.fullmatch(rf"{re.escape(part)}\..*class_path", name)]
    classes = [_short(config[name]) for name in named if name.count(".") <= depth]
    values = _below(part, config) or ["–"]
    return ", ".join(classes) or (f"{len(values)} settings" if len(values) > 1 else values[0])


def _short(value: str) -> str:
    """Shortens a dotted class path to its last name."""
    return value.rsplit(".", 1)[-1] if re.fullmatch(r"[a-z_]\w*(\.\w+)+", value) else value


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
    return yaml.load(path.read_text(encoding="utf-8"), Loader=_Loader) or {} if path.is_file() else {}


def _config(run: RunRecord) -> Any:
    return read_yaml(run.folder / "config.yaml")


def is_place(setting: str, found: Mapping[str, list[str]]) -> bool:
    """Whether the values of a setting name places or seeds, in which runs differ without being different experiments."""
    name = setting.rsplit(".", 1)[-1]
    return name == "seed_everything" or any("/" in value or "\\" in value for values in found.values() for value in values)


def _values(values: list[str]) -> str:
    return ", ".join(values) if len(values) <= 3 else f"{len(values)} values"


def _number(value: Any, digits: int = 0) -> str:
    return "–" if value is None else f"{value:,.{digits}f}"


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
