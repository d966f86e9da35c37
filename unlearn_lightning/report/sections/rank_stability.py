"""Does the best objective depend on the path? Kendall's tau-b of the objectives' ranking between every two paths.

1: every two paths rank the objectives alike; 0: the ranking on one path says nothing about that on another; -1: it is reversed.
"""

import math
from collections.abc import Iterable, Mapping
from itertools import combinations

from unlearn_lightning.records.statistics import Estimate, estimate
from unlearn_lightning.records.study_data import Study
from unlearn_lightning.report.blocks import Block, Table
from unlearn_lightning.report.columns import Interval, Number, Text
from unlearn_lightning.report.distances import Distances
from unlearn_lightning.report.outcomes import outcome
from unlearn_lightning.report.section import Section

LEAST = 3
"""Of fewer objectives a ranking says little."""
RANKED = {
    "label_drop": "label drop", "forget_score": "forget score", "retention": "retention", "accuracy_change": "math accuracy change",
    "distance_after": "distance to the retrained model",
}  # fmt: skip


def mean_tau(values: Mapping[str, Mapping[str, float]]) -> float:
    """Mean over pairs of paths of Kendall's tau-b (Kendall 1945, with ties) between the rankings of the objectives that both have.

    Args:
        values: path -> objective -> a quantity.

    Returns:
        A number in [-1, 1]; nan where no two paths have three objectives in common, or all of them tie.
    """
    from scipy.stats import kendalltau

    found = []
    for first, second in combinations(values.values(), 2):
        names = [name for name in first if name in second and math.isfinite(first[name] + second[name])]
        if len(names) >= LEAST:
            found.append(float(kendalltau([first[name] for name in names], [second[name] for name in names]).statistic))
    known = [tau for tau in found if not math.isnan(tau)]
    return sum(known) / len(known) if known else math.nan


def rank_stability(study: Study, distances: Distances) -> dict[str, Estimate]:
    """Each quantity's mean tau over pairs of paths, over seeds; quantities that were not measured are left out."""
    by_seed: dict[int, dict[str, dict[str, dict[str, float]]]] = {}
    for path in study.paths:
        for objective in study.objectives:
            for run in study.unlearned(objective, path):
                for quantity, value in outcome(study, run, distances).items():
                    if quantity in RANKED:
                        by_seed.setdefault(run.seed, {}).setdefault(quantity, {}).setdefault(path.label, {})[objective] = value
    found = {name: estimate(mean_tau(of.get(name, {})) for of in by_seed.values()) for name in RANKED}
    return {name: tau for name, tau in found.items() if tau.n}


class RankStability(Section):
    """A row per quantity by which objectives can be ranked."""

    place = 77
    heading = "Is the best objective the same on every path?"
    caption = (
        "Kendall's tau-b between the rankings of the objectives on two paths, a mean over the pairs of paths: 1 where all paths rank them "
        "alike, 0 where one path's ranking says nothing about another's. Over seeds, with 95% intervals."
    )

    def blocks(self) -> Iterable[Block]:
        if len(self.study.objectives) < LEAST or len(self.study.paths) < 2:
            return
        columns = [Text("ranked by"), Interval("tau-b", "tau_b", digits=2, signed=True), Number("objectives", digits=0)]
        table = Table("rank_stability", columns)
        for name, tau in rank_stability(self.study, self.material.distances).items():
            table.add(RANKED[name], tau, len(self.study.objectives))
        yield table
