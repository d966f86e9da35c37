"""What was run: every run with its cost, the versions it ran under, and the settings in which sibling runs differ."""

import re
from collections import Counter
from collections.abc import Iterable, Mapping

from unlearn_lightning.records.settings import flatten, is_place, read_yaml
from unlearn_lightning.records.study_data import RunRecord, Study
from unlearn_lightning.report.blocks import Block, Prose, Table
from unlearn_lightning.report.columns import Number, Text
from unlearn_lightning.report.section import Material, Section

OPEN = 12
"""A table of more rows starts folded."""
WARNING = "Each way is right to rounding, but many steps of training may make such a difference large."


class Provenance(Section):
    """Versions, settings that differ, and the runs; the end of the page."""

    place = 100
    heading = "What was run"

    def __init__(self, material: Material):
        super().__init__(material)
        self.caption = totals(self.study)

    def blocks(self) -> Iterable[Block]:
        yield Prose(versions(self.study))
        for sentence in mixtures(self.study):
            yield Prose(sentence, warns=True)
        settings = config_differences(self.study, "unlearn"), config_differences(self.study, "stage")
        for table, noun in zip((*settings, run_table(self.study)), ("settings", "settings", "runs"), strict=True):
            table.folded = f"{len(table.rows)} {noun}" if len(table.rows) > OPEN else ""
            yield table


def run_table(study: Study) -> Table:
    """One row per run of the study, in the order in which they ran."""
    words = ("run", "kind", "status", "trained by", "data")
    numbers = {"steps": 0, "examples": 0, "tokens": 0, "truncated": 0, "seconds": 1, "tokens/s": 0, "memory (MiB)": 0}
    columns = [*map(Text, words), *(Number(title, digits=digits) for title, digits in numbers.items())]
    table = Table("runs", columns, heading="Runs")
    for run in study.runs:
        info = run.info
        memory = info.get("peak_memory_bytes")
        table.add(
            run.name, run.kind, run.status, info.get("model"), info.get("data"),
            *(info.get(name) for name in ("steps", "examples", "tokens", "truncated", "seconds", "tokens_per_second")),
            memory / 2**20 if memory else None, marked=run.status != "finished",
        )  # fmt: skip
    return table


def mixtures(study: Study) -> list[str]:
    """One sentence for each group of compared runs that differ in what run.json calls `computed_with`; none where all are alike.

    All unlearning runs are compared with each other, and training runs with those of the same stage.
    """
    groups: dict[str, list[RunRecord]] = {}
    for run in study.runs:
        usual = {"unlearn": "unlearning runs", "relearn": f"runs of the relearning {run.tags.get('relearning')}"}
        name = usual.get(run.kind) or f"training runs of {(run.stages or ('the base',))[-1]}"
        groups.setdefault(name, []).append(run)
    return [
        f"The {name} were not all computed alike: {'; '.join(found)}. {WARNING}" for name, runs in groups.items() if (found := _mixed(runs))
    ]


def _mixed(runs: Iterable[RunRecord]) -> list[str]:
    return [
        f"{setting} is {' and '.join(f'{value} in {n} run' + 's' * (n > 1) for value, n in sorted(found.items()))}"
        for setting, found in _counted(runs, "computed_with").items()
        if len(found) > 1
    ]


def _counted(runs: Iterable[RunRecord], part: str) -> dict[str, Counter[str]]:
    """In how many runs each entry of a part of run.json has each value."""
    seen: dict[str, Counter[str]] = {}
    for run in runs:
        for name, value in (run.info.get(part) or {}).items():
            seen.setdefault(name, Counter())[str(value)] += 1
    return seen


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
    parts = []
    for name, found in _counted(study.runs, "versions").items():
        several = [f"{version} ({count} run{'s' * (count > 1)})" for version, count in found.most_common()]
        parts.append(f"{name} {', '.join(several) if len(found) > 1 else next(iter(found))}")
    return " · ".join(parts)


def config_differences(study: Study, kind: str) -> Table:
    """The settings in which runs of one kind differ: a row per setting, a column per objective (or per last stage).

    Settings that only name places or derive from the run's position in the tree (seed, folders, adapters) are left out.
    """
    groups: dict[str, list[dict[str, str]]] = {}
    for run in study.finished(kind):
        if config := flatten(read_yaml(run.folder / "config.yaml")):
            groups.setdefault(run.objective if kind == "unlearn" else (run.stages or ("base",))[-1], []).append(config)
    settings = dict.fromkeys(setting for group in groups.values() for config in group for setting in config)
    what = "unlearning runs" if kind == "unlearn" else "stages"
    name = "unlearning_settings" if kind == "unlearn" else "stage_settings"
    table = Table(name, [Text("setting"), *map(Text, groups)], heading=f"Settings in which {what} differ")
    collapsed: set[str] = set()
    for setting in settings:
        found = {name: list(dict.fromkeys(config.get(setting, "–") for config in group)) for name, group in groups.items()}
        if len({value for values in found.values() for value in values}) < 2 or is_place(setting, found):
            continue
        whole = _absent_part(setting, groups)
        if whole == setting:
            table.add(setting, *(_values([_short(value) for value in values]) for values in found.values()))
        elif whole not in collapsed:  # Where a group lacks a whole part, such as its callbacks, one row says so.
            collapsed.add(whole)
            table.add(whole, *(_contents(whole, group[0]) for group in groups.values()))
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


def _values(values: list[str]) -> str:
    return ", ".join(values) if len(values) <= 3 else f"{len(values)} values"


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
