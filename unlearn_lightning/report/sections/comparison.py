"""Two studies compared: every measure of each path and objective in both, and the settings in which the studies differ.

found = compare(study, rows, other, other_rows)
found.pairs[0].difference("forget_score").text(signed=True)      # "+0.42 ± 0.10", this study minus the other
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from unlearn_lightning.records.settings import flatten, read_yaml
from unlearn_lightning.records.statistics import Estimate, discoveries, welch
from unlearn_lightning.records.study_data import Study, TrainingPath
from unlearn_lightning.report.blocks import Block, File, Prose, Table
from unlearn_lightning.report.columns import Column, Difference, Flag, Interval, Number, Paths, Text
from unlearn_lightning.report.outcomes import MEASURES, OutcomeRow
from unlearn_lightning.report.section import Material, Section

NOT_SETTINGS = ("name", "store", "folder")
"""Keys of study.yaml that say where a study lies, not what it does."""

_UNKNOWN = Estimate(math.nan, math.nan, 0)


@dataclass
class Pair:
    """One path under one objective in two studies; a row is None where its study has no finished run of it."""

    objective: str
    path: TrainingPath
    """As this study names it, or the other where only the other has it."""
    mine: OutcomeRow | None
    theirs: OutcomeRow | None
    same_runs: bool = False
    """Both rows come from the very same runs, which the studies share through their store."""

    def values(self, measure: str) -> tuple[Estimate, Estimate]:
        mine, theirs = (row.values[measure] if row else _UNKNOWN for row in (self.mine, self.theirs))
        return mine, theirs

    def difference(self, measure: str) -> Estimate:
        """This study minus the other, with Welch's 95% interval where both have several seeds."""
        mine, theirs = self.values(measure)
        return Estimate(mine.mean - theirs.mean, math.nan, mine.n) if self.same_runs else welch(mine, theirs)

    def cell(self, measure: str) -> tuple[Estimate, Estimate, Estimate]:
        """The measure in this study, in the other, and the difference."""
        return *self.values(measure), self.difference(measure)


@dataclass
class Comparison:
    """What two studies have in common and where they differ. `names` are this study's and the other's."""

    names: tuple[str, str]
    pairs: list[Pair]
    settings: Table
    notes: list[str]

    @property
    def measures(self) -> list[str]:
        """The measures that both studies have somewhere."""
        return [measure for measure in MEASURES if any(pair.difference(measure).n for pair in self.pairs)]

    def only_in(self, pair: Pair) -> str:
        """`only in demo` for a row that one study lacks, otherwise nothing."""
        if pair.mine is None:
            return f"only in {self.names[1]}"
        return "" if pair.theirs else f"only in {self.names[0]}"


def compare(study: Study, rows: Sequence[OutcomeRow], other: Study, other_rows: Sequence[OutcomeRow]) -> Comparison:
    """Pairs rows of equal objective and equal stages: this study's in their order, then what only the other study has."""
    names = _names(study, other)
    theirs = {(row.objective, row.path.stages): row for row in other_rows}
    pairs = []
    for row in rows:
        match = theirs.pop((row.objective, row.path.stages), None)
        shared = match is not None and _keys(study, row) == _keys(other, match)
        pairs.append(Pair(row.objective, row.path, row, match, shared))
    pairs += [Pair(row.objective, row.path, None, row) for row in theirs.values()]
    settings, unread = _settings(study, other, names)
    notes = [*_one_sided(pairs, names), *unread]
    if study.retain_name != other.retain_name:
        notes.append(f"The retention is that of {study.retain_title} in {names[0]}, but of {other.retain_title} in {names[1]}.")
    if shared_rows := sum(pair.same_runs for pair in pairs):
        what = "1 row rests" if shared_rows == 1 else f"{shared_rows} rows rest"
        notes.append(f"{what} on the very same runs in both studies: no difference, and no interval.")
    return Comparison(names, pairs, settings, notes)


def _one_sided(pairs: Sequence[Pair], names: tuple[str, str]) -> list[str]:
    notes = [] if any(pair.mine and pair.theirs for pair in pairs) else ["The studies have no path and objective in common."]
    for name, absent in ((names[0], "theirs"), (names[1], "mine")):
        paths: dict[str, list[str]] = {}
        for pair in pairs:
            if getattr(pair, absent) is None:
                paths.setdefault(pair.objective, []).append(f"{pair.path.label} ({pair.path.arrow})")
        objectives: dict[str, list[str]] = {}
        for objective, labels in paths.items():
            objectives.setdefault(", ".join(labels), []).append(objective)
        notes += [f"Only in {name}, under {', '.join(under)}: {labels}." for labels, under in objectives.items()]
    return notes


def _settings(study: Study, other: Study, names: tuple[str, str]) -> tuple[Table, list[str]]:
    """The keys of the two study.yaml whose values differ, and a note for each study that has none."""
    table = Table(
        "comparison_settings", [Text("setting"), *map(Text, names)], heading="Settings in which the studies differ", on_terminal=True
    )
    found = [read_yaml(one.folder / "study.yaml") for one in (study, other)]
    unread = [f"{name} has no study.yaml, so settings cannot be compared." for name, one in zip(names, found, strict=True) if not one]
    if unread:
        return table, unread
    mine, theirs = map(flatten, found)
    for setting in dict.fromkeys([*mine, *theirs]):
        values = [of.get(setting, "–") for of in (mine, theirs)]
        if values[0] != values[1] and setting not in NOT_SETTINGS:
            table.add(setting, *values)
    return table, []


def _keys(study: Study, row: OutcomeRow) -> set[str]:
    return {run.key for run in study.unlearned(row.objective, row.path)}


def _names(study: Study, other: Study) -> tuple[str, str]:
    """The studies' names, or their folders where the names are the same."""
    if study.name != other.name:
        return study.name, other.name
    return str(study.folder), str(other.folder)


DIGITS = {"distance_before": 1, "distance_after": 1, "margin_before": 1}


class Against(Section):
    """The comparison of `--against`: compact for the page, a row per measure for every other place, and table.csv with both sides."""

    place = 40

    def __init__(self, material: Material):
        super().__init__(material)
        self.found: Comparison | None = None
        if other := material.against:
            self.found = compare(material.study, material.rows, other.study, other.rows)
            mine, theirs = self.found.names
            self.heading = f"Against {theirs}"
            self.caption = (
                f"Each difference is {mine} minus {theirs}. ± is the half width of Welch's 95% confidence interval where both studies have "
                "several seeds. Marked are differences at a false discovery rate of 5% over this table (Benjamini and Hochberg)."
            )

    def blocks(self) -> Iterable[Block]:
        if self.found is None:
            return []
        notes = Prose(" ".join(self.found.notes))
        both = File("table.csv", by_pair(self.found, [*MEASURES], in_full=True).csv())
        return [notes, by_pair(self.found, self.found.measures), by_measure(self.found), self.found.settings, both]


def by_pair(found: Comparison, measures: Sequence[str], in_full: bool = False) -> Table:
    """One row per path and objective: for each measure both values and the difference."""
    columns: list[Column] = [Paths(arrow=in_full), Text("objective"), *(Number(name, in_full=True) for name in ("seeds", "against_seeds"))]
    columns += [Difference(MEASURES[measure], measure, digits=DIGITS.get(measure, 2)) for measure in measures]
    table = Table("by_pair", [*columns, Flag("", "slowest", in_full=True), Text("", "only_in")], stacked=True, in_files=False)
    compared = [pair.values(measure) for pair in found.pairs if not pair.same_runs for measure in measures]
    differ = iter(discoveries(compared))
    for pair in found.pairs:
        low = [4 + index for index in range(len(measures)) if not pair.same_runs and next(differ)]
        seeds = [row.seeds if row else 0 for row in (pair.mine, pair.theirs)]
        slowest = pair.mine is not None and pair.mine.slowest
        table.add(pair.path, pair.objective, *seeds, *map(pair.cell, measures), slowest, found.only_in(pair), low=low)
    return table


def by_measure(found: Comparison) -> Table:
    """One row per path, objective and measure: both values and the difference, this study minus the other."""
    mine, theirs = (Interval(name, digits=2, short=short) for name, short in zip(found.names, ("this\nstudy", "the\nother"), strict=True))
    difference = Interval("difference", digits=2, signed=True, rank=0)
    columns = [Paths(), Text("objective", heads=True), Text("measure", heads=True), mine, theirs, difference, Text("", "only_in", rank=2)]
    several = any(pair.difference(measure).half_width >= 0 for pair in found.pairs for measure in found.measures)
    interval = " ± is the half width of Welch's 95% confidence interval." if several else ""
    note = " ".join([f"Differences are {found.names[0]} minus {found.names[1]}.{interval}", *found.notes])
    table = Table("comparison", columns, title=" against ".join(found.names), note=note, hidden=True, on_terminal=True)
    for objective in dict.fromkeys(pair.objective for pair in found.pairs):
        for measure in found.measures or MEASURES:
            for pair in (pair for pair in found.pairs if pair.objective == objective):
                table.add(pair.path, objective, MEASURES[measure], *pair.cell(measure), found.only_in(pair))
    return table
