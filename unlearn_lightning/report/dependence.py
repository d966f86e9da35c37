"""How much of an outcome is owed to the path, in one number per seed, so that objectives and their variants can be compared.

A spread is the largest value over paths minus the smallest. It is never below 0, so its interval says how sure its size is and not
whether there is one; variants are compared with each other.
"""

import math
from collections.abc import Mapping, Sequence
from itertools import combinations

from unlearn_lightning.report.distances import Distances
from unlearn_lightning.report.matched import matched_in_seed
from unlearn_lightning.report.outcomes import first, last, outcome
from unlearn_lightning.report.statistics import Curve, estimate
from unlearn_lightning.report.study_data import Run, Study
from unlearn_lightning.report.tables import Table

DEPENDENCE_CAPTION = (
    "What the path decides, over seeds in which every path was measured. Spread: largest minus smallest over the paths; relative: the "
    "spread divided by the mean; utility and accuracy are compared where all paths have forgotten equally much. Distance: mean over pairs "
    "of paths of the squared distance between their predictions, after unlearning and as a multiple of what it was before."
)
HEADER = (
    "objective", "label drop", "its spread", "relative", "forget score", "its spread", "relative", "utility spread, equal forgetting",
    "accuracy spread, equal forgetting", "distance between paths", "times that before",
)  # fmt: skip


def spread(values: Sequence[float]) -> float:
    """Largest minus smallest; nan below two values or where one is missing."""
    return math.nan if len(values) < 2 or any(map(math.isnan, values)) else max(values) - min(values)


def dependence_table(study: Study, distances: Distances) -> Table:
    """One row per objective of which something was measured; empty below two paths."""
    table = Table([*HEADER], [], first_number=1)
    for objective in study.objectives if len(study.paths) > 1 else []:
        by_seed: dict[int, list[Run]] = {}
        for path in study.paths:
            for run in study.unlearned(objective, path):
                by_seed.setdefault(run.seed, []).append(run)
        complete = {seed: runs for seed, runs in by_seed.items() if len(runs) == len(study.paths)}
        cells = _cells(study, objective, complete, distances) if complete else []
        if any(cell != "–" for cell in cells):
            table.rows.append([objective, *cells])
    return table


def _cells(study: Study, objective: str, complete: Mapping[int, Sequence[Run]], distances: Distances) -> list[str]:
    outcomes = [[outcome(study, run, distances) for run in runs] for runs in complete.values()]
    cells = []
    for measure in ("label_drop", "forget_score"):
        values = [[one[measure] for one in seed] for seed in outcomes]
        means, spreads = [sum(seed) / len(seed) for seed in values], [spread(seed) for seed in values]
        relative = [one / mean if mean > 0 else math.nan for one, mean in zip(spreads, means, strict=True)]
        cells += [estimate(numbers).text() for numbers in (means, spreads, relative)]
    matches = [matched_in_seed(study, objective, seed).values() for seed in complete]
    cells += [estimate(spread([one.utility for one in seed]) for seed in matches).text(3)]
    cells += [estimate(spread([one.accuracy_change for one in seed]) for seed in matches).text(3)]
    curves = [_between(study, objective, seed, distances) for seed in complete]
    ratios = [last(curve) / first(curve) if curve and first(curve) > 0 else math.nan for curve in curves]
    return [*cells, estimate(last(curve) for curve in curves).text(0), estimate(ratios).text()]


def _between(study: Study, objective: str, seed: int, distances: Distances) -> Curve:
    """The mean over pairs of paths of their distance, at the steps that all pairs have in common."""
    pairs = [distances.in_seed(objective, a, b, seed) for a, b in combinations(study.paths, 2)]
    steps = set.intersection(*(set(pair) for pair in pairs))
    return {step: sum(pair[step] for pair in pairs) / len(pairs) for step in sorted(steps)}
