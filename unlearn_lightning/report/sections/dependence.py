"""How much of an outcome is owed to the path, in one number per seed, so that objectives and their variants can be compared.

A spread is the largest value over paths minus the smallest. It is never below 0, so its interval says how sure its size is and not
whether there is one. Whether a variant has less of it is asked seed by seed: the same stages unlearned in two ways.
"""

import math
from collections.abc import Iterable, Sequence
from itertools import combinations

from unlearn_lightning.records.statistics import Curve, estimate
from unlearn_lightning.records.study_data import RunRecord, Study
from unlearn_lightning.report.blocks import Block, Table
from unlearn_lightning.report.columns import Interval, Number, Text
from unlearn_lightning.report.distances import Distances
from unlearn_lightning.report.outcomes import first, last, outcome
from unlearn_lightning.report.section import Section
from unlearn_lightning.report.sections.matched import matched_in_seed
from unlearn_lightning.report.variants import extra_tags, variants

CHANGES_CAPTION = (
    "The same numbers of each variant minus those of the one it is compared with, seed by seed, as both start from the same models: below "
    "0 the path decides less. ± is a 95% confidence interval over seeds; it is not corrected for the number of comparisons."
)

Dependence = dict[str, float]
"""One seed of one objective, by the names below; nan where it was not measured. Nats, and squared nats for distances."""

# name -> the table's heading, and digits
COLUMNS = {
    "label_drop": ("label drop", 2), "label_spread": ("its spread", 2), "label_relative": ("relative", 2),
    "forget_score": ("forget score", 2), "forget_spread": ("its spread", 2), "forget_relative": ("relative", 2),
    "retention_spread": ("retention spread, equal forgetting", 3), "accuracy_spread": ("accuracy spread, equal forgetting", 3),
    "distance": ("distance between paths", 0), "growth": ("times that before", 2),
}  # fmt: skip
# What variants are compared by: numbers that do not grow by themselves with how much is forgotten.
COMPARED = {
    "label_relative": "label drop: relative spread", "forget_relative": "forget score: relative spread",
    "retention_spread": "retention spread, equal forgetting", "accuracy_spread": "accuracy spread, equal forgetting",
    "growth": "distance between paths, times that before",
}  # fmt: skip


def spread(values: Sequence[float]) -> float:
    """Largest minus smallest; nan below two values or where one is missing."""
    return math.nan if len(values) < 2 or any(map(math.isnan, values)) else max(values) - min(values)


def dependence_by_seed(study: Study, objective: str, distances: Distances) -> dict[int, Dependence]:
    """The seeds in which every path was unlearned; none below two paths."""
    by_seed: dict[int, list[RunRecord]] = {}
    for path in study.paths if len(study.paths) > 1 else []:
        for run in study.unlearned(objective, path):
            by_seed.setdefault(run.seed, []).append(run)
    return {seed: _dependence(study, objective, seed, runs, distances) for seed, runs in by_seed.items() if len(runs) == len(study.paths)}


def dependence_table(study: Study, distances: Distances) -> Table:
    """One row per objective of which something was measured; empty below two paths."""
    columns = [Text("objective"), *(Interval(title, name, digits=digits) for name, (title, digits) in COLUMNS.items())]
    table = Table("dependence", columns)
    for objective in study.objectives:
        seeds = dependence_by_seed(study, objective, distances).values()
        cells = [estimate(seed[name] for seed in seeds) for name in COLUMNS]
        if any(cell.n for cell in cells):
            table.add(objective, *cells)
    return table


def changes_table(study: Study, distances: Distances) -> Table:
    """One row per variant and the first one of its family, such as the lowest learning rate; empty without variants."""
    numbers = [Interval(title, name, digits=2, signed=True) for name, title in COMPARED.items()]
    table = Table("variants", [Text("variant"), Text("compared with"), Number("seeds", digits=0), *numbers], caption=CHANGES_CAPTION)
    for tag in extra_tags(study):
        families, values = variants(study, tag)
        for names in families.values():
            known, *others = [names[value] for value in values if value in names]
            before = dependence_by_seed(study, known, distances)
            for other in others:
                after = dependence_by_seed(study, other, distances)
                seeds = sorted(before.keys() & after.keys())
                changes = [estimate(after[seed][name] - before[seed][name] for seed in seeds) for name in COMPARED]
                if any(change.n for change in changes):
                    table.add(other, known, len(seeds), *changes)
    return table


class PathDependence(Section):
    """What the path decides under each objective, and how variants differ in it."""

    place = 75
    heading = "How much does the path decide?"
    caption = (
        "What the path decides, over seeds in which every path was measured. Spread: largest minus smallest over the paths; relative:"
        " the spread divided by the mean; retention and accuracy are compared where all paths have forgotten equally much, if they were"
        " measured near there. Distance: mean over pairs of paths of the squared distance between their predictions, after unlearning"
        " and as a multiple of what it was before."
    )

    def blocks(self) -> Iterable[Block]:
        if dependence := dependence_table(self.study, self.material.distances):
            return [dependence, changes_table(self.study, self.material.distances)]
        return []


def _dependence(study: Study, objective: str, seed: int, runs: Sequence[RunRecord], distances: Distances) -> Dependence:
    outcomes = [outcome(study, run, distances) for run in runs]
    found: Dependence = {}
    for measure, short in (("label_drop", "label"), ("forget_score", "forget")):
        values = [one[measure] for one in outcomes]
        mean, width = sum(values) / len(values), spread(values)
        found |= {measure: mean, f"{short}_spread": width, f"{short}_relative": width / mean if mean > 0 else math.nan}
    matches = matched_in_seed(study, objective, seed).values()
    curve = _between(study, objective, seed, distances)
    return found | {
        "retention_spread": spread([one.retention for one in matches]),
        "accuracy_spread": spread([one.accuracy_change for one in matches]),
        "distance": last(curve),
        "growth": last(curve) / first(curve) if curve and first(curve) > 0 else math.nan,
    }


def _between(study: Study, objective: str, seed: int, distances: Distances) -> Curve:
    """The mean over pairs of paths of their distance, at the steps that all pairs have in common."""
    pairs = [distances.in_seed(objective, a, b, seed) for a, b in combinations(study.paths, 2)]
    steps = set.intersection(*(set(pair) for pair in pairs))
    return {step: sum(pair[step] for pair in pairs) / len(pairs) for step in sorted(steps)}
