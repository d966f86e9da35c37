"""The recency effect as a statistic: in how many seeds does the path that met the forget stage last forget the least?

A likelihood near its ceiling hides how far the logits under it have moved, so the count is made under controls too: on the label's
logit margin, on its paraphrases, and from starting points matched in the label's log-likelihood.

counted = recency(study, "margin_drop")
counted[0].share.interval     # 95% Wilson interval of the share of seeds
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import pairwise

from unlearn_lightning.report.statistics import Curve, Share, crossing_step, drop, finite, interpolate, measured_gap
from unlearn_lightning.report.study_data import Study
from unlearn_lightning.report.tables import Table

Drops = Callable[[Mapping[int, Curve]], dict[int, float]]
"""From each path's curve to how far it fell, both by path index; nan where that cannot be said."""


@dataclass
class Recency:
    """In how many seeds the path that met the forget stage last forgot the least, under one objective.

    Only seeds in which every path of the study was measured count; `incomplete` are the others.
    """

    objective: str
    share: Share
    incomplete: int


def plain_drops(curves: Mapping[int, Curve]) -> dict[int, float]:
    """Each path's decrease from the first measured step to the last."""
    return {index: drop(curve) for index, curve in curves.items()}


def drops_from_equal_start(curves: Mapping[int, Curve]) -> dict[int, float]:
    """Each path's decrease from a common level, over equally many steps.

    The level is the lowest value at which a path starts. Every path's clock starts at the (fractional) step at which it first reaches the
    level, by linear interpolation between measured steps, and runs for as many steps as the latest of them has left. All are nan when a
    path never falls to the level, or when the latest reaches it at its last step: there is nothing to compare then. So they are where a
    path was measured more than twice as rarely around either step as the most often measured one ever was.

    Args:
        curves: path index -> log-likelihood (nats) by step.
    """
    nothing = dict.fromkeys(curves, math.nan)
    if not curves or not all(curves.values()):
        return nothing
    level = min(curve[min(curve)] for curve in curves.values())
    if any(math.isnan(curve[min(curve)]) for curve in curves.values()):
        return nothing
    starts = {index: crossing_step({step: -value for step, value in curve.items()}, -level) for index, curve in curves.items()}
    left = min(max(curve) - starts[index] for index, curve in curves.items())
    if any(map(math.isnan, starts.values())) or left <= 0:
        return nothing
    known = {index: finite(curve) for index, curve in curves.items()}
    often = min(after - before for curve in known.values() for before, after in pairwise(sorted(curve)))
    read = [(known[index], step) for index, start in starts.items() for step in (start, start + left)]
    if any(step > max(curve) or measured_gap(curve, step) > 2 * often for curve, step in read):
        return nothing
    return {index: level - interpolate(curve, starts[index] + left) for index, curve in curves.items()}


@dataclass(frozen=True)
class RecencyMeasure:
    """What a count of the slowest path looks at: a metric of the forget probe, and how its decrease is taken."""

    title: str
    metric: str
    drops: Drops = plain_drops


MEASURED = {
    "label_drop": RecencyMeasure("label", "forget/label_log_lik"),
    "forget_score": RecencyMeasure("forget score", "forget/phrases_log_lik"),
    "paraphrase_drop": RecencyMeasure("paraphrases", "forget/paraphrase_log_lik"),
    "margin_drop": RecencyMeasure("logit margin", "forget/label_margin"),
    "matched_drop": RecencyMeasure("label, equal start", "forget/label_log_lik", drops_from_equal_start),
}
"""The columns of the recency table, in order."""

RECENCY_CAPTION = (
    "Seeds in which the path that met the forget stage last fell least, with 95% Wilson intervals. The logit margin (the label's logit "
    "minus the largest other) and an equal start (the clock of each path starts where its label has fallen to the lowest starting "
    "log-likelihood of all, and all run equally long) tell the effect apart from saturation. Left out: seeds with a path missing, or one "
    "that never falls to that level."
)


def recency(study: Study, measure: str = "label_drop") -> list[Recency]:
    """The recency effect's statistic per objective; a tie for the smallest drop does not count as a hit.

    Args:
        study: finished runs are counted.
        measure: a key of `MEASURED`.
    """
    return list(map(partial(_counted, study, MEASURED[measure]), study.objectives))


def _counted(study: Study, measured: RecencyMeasure, objective: str) -> Recency:
    by_seed: dict[int, dict[int, Curve]] = {}
    for path in study.paths:
        for run in study.unlearned(objective, path):
            by_seed.setdefault(run.seed, {})[path.index] = run.metric("forget", measured.metric)
    last = {path.index for path in study.last_paths}
    hits = complete = 0
    for curves in by_seed.values():
        drops = measured.drops(curves)
        if len(drops) < max(2, len(study.paths)) or any(map(math.isnan, drops.values())):
            continue
        complete += 1
        final = min(value for index, value in drops.items() if index in last)
        others = [value for index, value in drops.items() if index not in last]
        hits += bool(others) and final < min(others)
    planned = {run.seed for run in study.runs if run.kind == "unlearn" and run.objective == objective}
    return Recency(objective, Share(hits, complete), len(planned) - complete)


def recency_table(study: Study) -> Table:
    """One row per objective: `2 of 3 (21% to 94%)` seeds on each measure; a dash where no seed could be compared.

    Empty unless there are two paths to compare and a seed in which all were measured.
    """
    columns: list[Sequence[Recency]] = [recency(study, measure) for measure in MEASURED] if len(study.paths) > 1 else []
    table = Table(["objective", *(measured.title for measured in MEASURED.values())], [])
    if any(one.share.n for column in columns for one in column):
        table.rows = [[row[0].objective, *map(_cell, row)] for row in zip(*columns, strict=True)]
    return table


def _cell(one: Recency) -> str:
    left_out = f", {one.incomplete} left out" if one.incomplete else ""
    if not one.share.n:
        return f"–{left_out}"
    low, high = one.share.interval
    return f"{one.share.hits} of {one.share.n} ({low:.0%} to {high:.0%}){left_out}"
