"""The recency effect as a statistic: in how many seeds does the path that met the forget stage last forget the least?

A likelihood near its ceiling hides how far the logits under it have moved, so the count is made under controls too: on the label's
logit margin, on its paraphrases, and from starting points matched in the label's log-likelihood. A study of one's own data without a label
is counted by the forget set's own responses.

counted = recency(study, "margin_drop")
counted[0].share.interval     # 95% Wilson interval of the share of seeds
"""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from itertools import pairwise
from typing import Any

from unlearn_lightning.records.statistics import Curve, Share, crossing_step, drop, finite, interpolate, measured_gap
from unlearn_lightning.records.study_data import Study
from unlearn_lightning.report.blocks import Block, Table
from unlearn_lightning.report.columns import Counted, Text
from unlearn_lightning.report.outcomes import label_is_measured
from unlearn_lightning.report.section import Section, Verdict, listed

WEIGHT = 2.0
"""Of the verdict where seeds could be compared: it comes before that on the depth of forgetting."""
Drops = Callable[[Mapping[int, Curve]], dict[int, float]]
"""From each path's curve to how far it fell, both by path index; nan where that cannot be said."""


@dataclass
class Recency:
    """In how many seeds the path that met the forget stage last forgot the least, under one objective.

    Only seeds in which every path of the study was measured count; the share's `left_out` are the others.
    """

    objective: str
    share: Share


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


LABEL = "forget/label_log_lik"
RESPONSES = "forget/log_lik"
MEASURED = {
    "label_drop": RecencyMeasure("label", LABEL),
    "forget_score": RecencyMeasure("forget score", "forget/phrases_log_lik"),
    "paraphrase_drop": RecencyMeasure("paraphrases", "forget/paraphrase_log_lik"),
    "margin_drop": RecencyMeasure("logit margin", "forget/label_margin"),
    "matched_drop": RecencyMeasure("label, equal start", LABEL, drops_from_equal_start),
}
"""The columns of the recency table, in order."""
OWN = {
    "response_drop": RecencyMeasure("responses", RESPONSES),
    "matched_response_drop": RecencyMeasure("responses, equal start", RESPONSES, drops_from_equal_start),
}
"""Those where no label was measured, but a probe called forget (ResponseLikelihood) measured the forget set's own responses."""


def measures(study: Study) -> dict[str, RecencyMeasure]:
    """What the study's slowest path is counted by: its label, or else its own responses."""
    own = any(run.metric("forget", RESPONSES) for run in study.finished("unlearn"))
    return OWN if own and not label_is_measured(study) else MEASURED


def recency(study: Study, measure: str = "label_drop") -> list[Recency]:
    """The recency effect's statistic per objective; a tie for the smallest drop does not count as a hit.

    Args:
        study: finished runs are counted.
        measure: a key of `MEASURED` or `OWN`.
    """
    return list(map(partial(_counted, study, measure), study.objectives))


def last_is_slowest(study: Study, objective: str, measure: str) -> dict[int, bool]:
    """Seed -> whether the path that met the forget stage last fell least; seeds that cannot be compared are left out.

    Args:
        study: finished runs are counted.
        objective: its display name.
        measure: a key of `MEASURED` or `OWN`.
    """
    measured = {**MEASURED, **OWN}[measure]
    by_seed: dict[int, dict[int, Curve]] = {}
    for path in study.paths:
        for run in study.unlearned(objective, path):
            by_seed.setdefault(run.seed, {})[path.index] = run.metric("forget", measured.metric)
    last = {path.index for path in study.last_paths}
    found = {}
    for seed, curves in by_seed.items():
        drops = measured.drops(curves)
        if len(drops) < max(2, len(study.paths)) or any(map(math.isnan, drops.values())):
            continue
        final = min(value for index, value in drops.items() if index in last)
        others = [value for index, value in drops.items() if index not in last]
        found[seed] = bool(others) and final < min(others)
    return found


def _counted(study: Study, measure: str, objective: str) -> Recency:
    found = last_is_slowest(study, objective, measure)
    planned = {run.seed for run in study.runs if run.kind == "unlearn" and run.objective == objective}
    return Recency(objective, Share(sum(found.values()), len(found), len(planned) - len(found)))


class RecencyEffect(Section):
    """The count under each control, and the paper's main finding as the report's first sentence."""

    place = 30
    heading = "Is the last learned the slowest forgotten?"
    caption = (
        "Seeds in which the path that met the forget stage last fell least, with 95% Wilson intervals. The logit margin (the label's "
        "logit minus the largest other) and an equal start (the clock of each path starts where its label has fallen to the lowest "
        "starting log-likelihood of all, and all run equally long) tell the effect apart from saturation. Left out: seeds with a path"
        " missing, or one that never falls to that level. Where no label was measured, the forget set's own responses are counted."
    )

    @cached_property
    def counted(self) -> dict[str, list[Recency]]:
        """Measure -> its count per objective."""
        return {measure: recency(self.study, measure) for measure in self.measures}

    @cached_property
    def measures(self) -> dict[str, RecencyMeasure]:
        """The columns of the table; the verdict is by the first."""
        return measures(self.study)

    @property
    def by_first(self) -> list[Recency]:
        """The count by the label, or else by the responses, per objective."""
        return self.counted[next(iter(self.measures))]

    def blocks(self) -> Iterable[Block]:
        table = Table("recency", [Text("objective"), *(Counted(measured.title, name) for name, measured in self.measures.items())])
        if len(self.study.paths) > 1 and any(one.share.n for column in self.counted.values() for one in column):
            for row in zip(*self.counted.values(), strict=True):
                table.add(row[0].objective, *(one.share for one in row))
        return [table]

    def verdict(self) -> Verdict:
        return headline(self.study, self.by_first)

    def sentences(self) -> Iterable[str]:
        return [*_by_objective(self.study, self.by_first, self.counted.get("forget_score", [])), self._saturation()]

    def summary(self) -> dict[str, Any]:
        by_first = {one.objective: {"last_is_slowest": one.share.hits, "seeds": one.share.n} for one in self.by_first}
        by_each = {
            measure: {one.objective: {"hits": one.share.hits, "n": one.share.n, "ci95": one.share.interval} for one in counted}
            for measure, counted in self.counted.items()
        }
        return {"recency": by_first, "recency_measures": by_each}

    def _saturation(self) -> str:
        """The margin is the same for all objectives before step 1: average over them."""
        study, margins = self.study, {}
        for path in study.paths:
            known = [row.values["margin_before"].mean for row in self.material.rows if row.path == path and row.values["margin_before"].n]
            if known:
                margins[path.index] = sum(known) / len(known)
        latest = {path.index for path in study.last_paths}
        last = [value for index, value in margins.items() if index in latest]
        others = [value for index, value in margins.items() if index not in latest]
        if not last or not others:
            return ""
        mine = max(last)
        between = (f"{min(others):.1f}" if len(others) == 1 else f"{min(others):.1f} to {max(others):.1f}").replace("-", "−")
        if mine > max(others):
            meaning = "so some of its slowness can be saturation: logits must move before the likelihood does"
        else:
            meaning = "so saturation alone does not explain how fast it forgets"
        before = f"{mine:.1f}".replace("-", "−")
        return f"Before unlearning the label margin of {_last(study)} is {before} nats, that of the other paths {between}, {meaning}."


def headline(study: Study, counted: Sequence[Recency]) -> Verdict:
    """The paper's main finding in one sentence: is it there, against it, or can the data not tell?"""
    hits, cells = sum(one.share.hits for one in counted), sum(one.share.n for one in counted)
    if len(study.paths) < 2:
        return Verdict("A single path: nothing to compare.", weight=-1) if study.paths else Verdict("No path was unlearned.", weight=-1)
    own = measures(study) is OWN
    if not cells and not own and not label_is_measured(study):
        told = "No probe called forget measured a label (ForgetLikelihood) or the responses (ResponseLikelihood)"
        return Verdict(f"{told}, so that nothing is said of the slowest path. What was measured stands in the probes' tables, by path.")
    what = "its responses" if own else "the label"
    if not cells:
        known = "their likelihood" if own else "its label"
        return Verdict(f"No verdict yet: there is no seed in which every path was unlearned and {known} measured.")
    last = _last(study)
    chance = len(study.last_paths) / len(study.paths)
    where = f"{hits} of {cells} comparisons (one per seed and objective)"
    if hits == cells:
        comparisons = f"all {cells} comparisons (one per seed and objective)" if cells > 1 else "the one comparison there is"
        return Verdict(
            f"As in the paper: the path that met the forget stage last ({last}) forgot {what} least, in {comparisons}.", True, WEIGHT
        )
    if hits / cells > 0.5:
        return Verdict(
            f"Mostly as in the paper: the path that met the forget stage last ({last}) forgot {what} least in {where}.", True, WEIGHT
        )
    if hits / cells > chance:
        return Verdict(f"Not clear: the path that met the forget stage last ({last}) forgot {what} least in only {where}.", None, WEIGHT)
    least = f"only {where}" if hits else f"none of {cells} comparisons (one per seed and objective)"
    return Verdict(f"Against the paper: the path that met the forget stage last ({last}) forgot {what} least in {least}.", False, WEIGHT)


def _by_objective(study: Study, by_first: Sequence[Recency], by_score: Sequence[Recency]) -> list[str]:
    counted = [one for one in by_first if one.share.n]
    if not counted:
        return []
    single = max(one.share.n for one in counted) == 1
    parts = []
    for one in counted:
        low, high = one.share.interval
        parts.append(f"{one.objective} {one.share.hits} of {one.share.n}{'' if single else f' seeds ({low:.0%} to {high:.0%})'}")
    interval = "" if single else f", with 95% Wilson intervals (chance would give {len(study.last_paths) / len(study.paths):.0%})"
    sentences = [f"By objective{interval}: {', '.join(parts)}."]
    scored = [one for one in by_score if one.share.n]
    if scored:
        hits, cells = sum(one.share.hits for one in scored), sum(one.share.n for one in scored)
        sentences.append(f"By the forget score, which counts paraphrases too, it is {hits} of {cells}.")
    if single:
        sentences.append("With a single seed this is an observation, not a test.")
    if left_out := sum(one.share.left_out for one in by_first):
        some = "cell is" if left_out == 1 else "cells are"
        sentences.append(f"{left_out} further seed × objective {some} incomplete and not counted.")
    return sentences


def _last(study: Study) -> str:
    return listed([path.label for path in study.last_paths])
