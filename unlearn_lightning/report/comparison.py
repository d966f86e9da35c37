"""Two studies compared: every measure of each path and objective in both, and the settings in which the studies differ.

found = compare(study, rows, other, other_rows)
found.pairs[0].difference("forget_score").text(signed=True)      # "+0.42 ± 0.10", this study minus the other
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from unlearn_lightning.report.outcomes import MEASURES, OutcomeRow
from unlearn_lightning.report.provenance import flatten, read_yaml
from unlearn_lightning.report.statistics import Estimate, welch
from unlearn_lightning.report.study_data import Study, TrainingPath
from unlearn_lightning.report.tables import Table

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
        """The measure in this study and in the other."""
        mine, theirs = (row.values[measure] if row else _UNKNOWN for row in (self.mine, self.theirs))
        return mine, theirs

    def difference(self, measure: str) -> Estimate:
        """This study minus the other, with Welch's 95% interval where both have several seeds."""
        mine, theirs = self.values(measure)
        return Estimate(mine.mean - theirs.mean, math.nan, mine.n) if self.same_runs else welch(mine, theirs)

    def differs(self, measure: str) -> bool:
        """Whether the interval of the difference leaves zero out; False without an interval."""
        difference = self.difference(measure)
        return difference.low > 0 or difference.high < 0


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
        notes.append(f"The utility is that of {study.retain_title} in {names[0]}, but of {other.retain_title} in {names[1]}.")
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
    table = Table(["setting", *names], [], first_number=3)
    found = [read_yaml(one.folder / "study.yaml") for one in (study, other)]
    unread = [f"{name} has no study.yaml, so settings cannot be compared." for name, one in zip(names, found, strict=True) if not one]
    if unread:
        return table, unread
    mine, theirs = map(flatten, found)
    for setting in dict.fromkeys([*mine, *theirs]):
        values = [of.get(setting, "–") for of in (mine, theirs)]
        if values[0] != values[1] and setting not in NOT_SETTINGS:
            table.rows.append([setting, *values])
    return table, []


def _keys(study: Study, row: OutcomeRow) -> set[str]:
    return {run.key for run in study.unlearned(row.objective, row.path)}


def _names(study: Study, other: Study) -> tuple[str, str]:
    """The studies' names, or their folders where the names are the same."""
    if study.name != other.name:
        return study.name, other.name
    return str(study.folder), str(other.folder)
