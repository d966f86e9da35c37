"""Paths compared at equal forgetting. They forget at different speeds, so equal steps compare unequal amounts of it.

For each objective and seed the target is the largest forget score that every path reaches, or a given one, by which whole studies can be
compared. Retention and accuracy are read off at the (fractional) step at which a path first reaches it, linear between two measurements no
further apart than twice the forget score's own there; where they were not measured so near there is no number.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, NamedTuple

from unlearn_lightning.records.statistics import Estimate, crossing_step, drops, estimate, finite, interpolate, matched_score
from unlearn_lightning.records.study_data import Study, TrainingPath
from unlearn_lightning.report.blocks import Block, Table
from unlearn_lightning.report.columns import Interval, Paths, Text
from unlearn_lightning.report.outcomes import first, last, retention
from unlearn_lightning.report.section import Section


class Matched(NamedTuple):
    """One run at the matched forget score (nats): the (fractional) step at which it gets there, and what it has kept by then.

    nan where that was not measured near the step.
    """

    score: float
    step: float
    retention: float
    accuracy_change: float


@dataclass
class MatchedRow:
    """One path under one objective at the matched forget score (nats), over the seeds in which a match exists."""

    objective: str
    path: TrainingPath
    score: Estimate
    step: Estimate
    retention: Estimate
    accuracy_change: Estimate


def matched_forgetting(study: Study, at: float | None = None) -> list[MatchedRow]:
    """Compares the paths of each objective at equal forgetting; the rows are sorted by objective.

    Args:
        study: finished runs are compared; without `at` a seed needs at least two paths that forget at all.
        at: the forget score (nats) to compare at; null for the largest that all paths of an objective and seed reach. A path that never
            reaches it counts as measured nowhere.
    """
    rows = []
    for objective in study.objectives:
        found: dict[int, list[Matched]] = {}
        for seed in study.seeds:
            for index, match in matched_in_seed(study, objective, seed, at).items():
                found.setdefault(index, []).append(match)
        for index, values in sorted(found.items()):
            rows.append(MatchedRow(objective, study.paths[index], *(estimate(column) for column in zip(*values, strict=True))))
    return rows


def matched_in_seed(study: Study, objective: str, seed: int, at: float | None = None) -> dict[int, Matched]:
    """Each path's match in one seed, by path index; empty where there is none. `at` as in `matched_forgetting`."""
    runs = {path.index: run for path in study.paths for run in study.unlearned(objective, path) if run.seed == seed}
    scores = {index: drops(run.metric("forget", "forget/phrases_log_lik")) for index, run in runs.items()}
    scores = {index: score for index, score in scores.items() if score}
    target = matched_score(list(scores.values())) if at is None else at
    if (len(scores) < 2 and at is None) or math.isnan(target):
        return {}
    found = {}
    for index, score in scores.items():
        step = crossing_step(score, target)
        kept = retention(runs[index].metric("retain", f"retain/{study.retain_name}_log_lik"))
        accuracy = runs[index].metric("gsm8k", "gsm8k/accuracy")
        found[index] = Matched(target, step, interpolate(kept, step, score), interpolate(accuracy, step, score) - first(accuracy))
    return found


def compared_retention(study: Study, at: float) -> float:
    """One number by which the trials of a sweep compare: the mean of `compared_retentions` over the runs that have one; nan without any.

    Raises:
        ValueError: `at` is not above 0.
    """
    values = [value for value in compared_retentions(study, at).values() if not math.isnan(value)]
    return sum(values) / len(values) if values else math.nan


def compared_retentions(study: Study, at: float) -> dict[str, float]:
    """The retention of each unlearning run at the forget score `at` (nats), by the run's name; runs that measured one alone are not in it.

    A run that never reaches it counts with its retention at the end less the share of `at` that is missing, so that there is a number to
    climb by everywhere. nan where the retention was not measured near the step at which the run reaches it.

    Raises:
        ValueError: `at` is not above 0.
    """
    if not at > 0:
        raise ValueError(f"match_at is a forget score above 0 nats, got {at}.")
    found = {}
    for run in study.finished("unlearn"):
        scores = finite(drops(run.metric("forget", "forget/phrases_log_lik")))
        kept = retention(run.metric("retain", f"retain/{study.retain_name}_log_lik"))
        if scores and kept:
            step, missing = crossing_step(scores, at), 1 - max(scores.values()) / at
            found[run.name] = last(kept) - missing if math.isnan(step) else interpolate(kept, step, scores)
    return found


class MatchedForgetting(Section):
    """The table, and the one number by which trials of a sweep compare."""

    place = 70
    heading = "Compared at equal forgetting"
    caption = (
        "Paths forget at different speeds; here each is read off where it first reaches the largest forget score (nats) that all "
        "paths of its objective and seed reach, linear between two measurements no further apart than twice the forget score's own "
        "there. A dash: it was not measured so near (a smaller every_n_steps of its probe would)."
    )

    def blocks(self) -> Iterable[Block]:
        return [matched_table(matched_forgetting(self.study, self.material.match_at), self.study.retain_title)]

    def problems(self) -> Iterable[str]:
        at = self.material.match_at
        if at is None:
            return []
        found = compared_retentions(self.study, at)
        if far := [name for name, value in found.items() if math.isnan(value)]:
            return [f"The retention at a forget score of {at:g} was not measured near there in {', '.join(far)}"]
        return [] if found else [f"No retention at a forget score of {at:g}: no finished run measured both forgetting and retaining"]

    def summary(self) -> dict[str, Any]:
        at = self.material.match_at
        return {"compared": {} if at is None else {"matched/retention": compared_retention(self.study, at)}}


def matched_table(rows: list[MatchedRow], retain_title: str = "TOFU") -> Table:
    """One row per path and objective."""
    columns = [
        Paths(), Text("objective"), Interval("forget score", digits=2), Interval("reached at step", digits=1),
        Interval(f"{retain_title} retention", digits=3), Interval("math accuracy change", digits=2, signed=True),
    ]  # fmt: skip
    table = Table("matched_forgetting", columns)
    for row in rows:
        table.add(row.path, row.objective, row.score, row.step, row.retention, row.accuracy_change)
    return table
