"""Do paths drift apart while they are unlearned alike? Distances between them, and how fast they grow."""

import math
from collections.abc import Iterable
from itertools import combinations
from statistics import median

from unlearn_lightning.records.statistics import estimate, growth_rate, number_text
from unlearn_lightning.records.study_data import Study, TrainingPath
from unlearn_lightning.report.blocks import Block, Table
from unlearn_lightning.report.chart import Chart, Panel, averaged
from unlearn_lightning.report.columns import Column, Interval, Paths
from unlearn_lightning.report.distances import Distances
from unlearn_lightning.report.section import Section


class BetweenPaths(Section):
    """A figure of all pairs, and the growth rates of all distances."""

    place = 65
    heading = "Distance between paths"
    caption = (
        "Squared distance between the predictions of two paths after equally many steps, in nats², on a log axis: a straight rising line "
        "is exponential divergence. Line and marker colours name the two paths."
    )

    def blocks(self) -> Iterable[Block]:
        return [self._chart(), growth_table(self.study, self.material.distances)]

    def sentences(self) -> Iterable[str]:
        study, parts, all_rates = self.study, [], []
        for objective in study.objectives:
            pairs = [self.material.distances.between_paths(objective, a, b) for a, b in combinations(study.paths, 2)]
            if rates := [rate for curves in pairs for rate in map(growth_rate, curves) if not math.isnan(rate)]:
                all_rates += rates
                apart, pace = sum(rate > 0 for rate in rates), number_text(median(rates), 3, signed=True)
                parts.append(f"{apart} of {len(rates)} under {objective} (median growth rate {pace} per step)")
        if not parts:
            return []
        lead = "As the theory expects" if median(all_rates) > 0 else "Against the theory's expectation"
        return [f"{lead}, the pairs of paths that drift apart while they are unlearned alike are {', '.join(parts)}."]

    def _chart(self) -> Chart:
        panels = []
        for objective in self.study.objectives:
            lines = [
                averaged(pair_label(a, b), (a.index, b.index), self.material.distances.between_paths(objective, a, b), log=True)
                for a, b in combinations(self.study.paths, 2)
            ]
            panels.append(Panel(objective, [line for line in lines if line.x]))
        return Chart("paths", "", "", "unlearning step", "squared distance (nats²)", panels, log_y=True)


def pair_label(first: TrainingPath, second: TrainingPath) -> str:
    """Names a pair of paths as figures and tables do."""
    return f"{first.label} | {second.label}"


def growth_table(study: Study, distances: Distances) -> Table:
    """Growth rate of log d per step, per objective: of each path's distance to the retrained model, then between every two paths.

    One step multiplies d by exp(rate).
    """
    caption = (
        "Growth rate of the distances to the retrained model and between paths: slope of the log distance against the step, per "
        "step (least squares), the measured sibling of the theorem's "
        "2 log(1 + ρ*); at a rate r every step multiplies the distance by exp(r)."
    )
    rates: list[Column] = [Interval(objective, digits=3, signed=True) for objective in study.objectives]
    columns = [Paths("paths", alone="retrained model"), *rates]
    table = Table("growth_rates", columns, caption=caption)
    for ends in [*((path,) for path in study.paths), *combinations(study.paths, 2)]:
        found = [estimate(map(growth_rate, _curves(study, distances, objective, ends))) for objective in study.objectives]
        if any(rate.n for rate in found):
            table.add(ends, *found)
    return table


def _curves(study: Study, distances: Distances, objective: str, ends: tuple[TrainingPath, ...]) -> list[dict[int, float]]:
    if len(ends) == 1:
        return [distances.to_retrained(run) for run in study.unlearned(objective, ends[0])]
    return distances.between_paths(objective, ends[0], ends[1])
