"""What unlearning did to each path: one outcome per run, one row per objective and path over the seeds.

rows = summarize(study, Distances(study))
rows[0].values["forget_score"].text()     # "7.89 ± 0.41"
"""

import math
from dataclasses import dataclass

from unlearn_lightning.records.statistics import Curve, Estimate, drop, estimate
from unlearn_lightning.records.study_data import RunRecord, Study, TrainingPath
from unlearn_lightning.report.distances import Distances

MEASURES = {
    "forget_score": "forget score (nats)",
    "label_drop": "label drop (nats)",
    "retention": "retention",
    "accuracy_before": "math accuracy before",
    "accuracy_after": "math accuracy after",
    "accuracy_change": "math accuracy change",
    "distance_before": "squared distance to retrained before (nats²)",
    "distance_after": "squared distance to retrained after (nats²)",
    "margin_before": "label margin before (nats)",
}
"""The columns of the closing table, in order, with their units."""


def first(curve: Curve) -> float:
    """The value at the first measured step, nan when nothing was measured."""
    return curve[min(curve)] if curve else math.nan


def last(curve: Curve) -> float:
    """The value at the last measured step, nan when nothing was measured."""
    return curve[max(curve)] if curve else math.nan


def label_is_measured(study: Study) -> bool:
    """Whether some run was asked for its label, as the paper's tables are; a study of one's own data may have none."""
    return any(run.metric("forget", "forget/label_log_lik") for run in study.finished("unlearn"))


def retention(log_lik: Curve) -> dict[int, float]:
    """1 - |change of the retained answers' log-likelihood since the first step|, by step: what the paper calls the TOFU utility."""
    return {step: 1 - abs(value - first(log_lik)) for step, value in log_lik.items()}


def outcome(study: Study, run: RunRecord, distances: Distances) -> dict[str, float]:
    """All measures of one unlearning run; nan where its probe is absent."""
    retain = run.metric("retain", f"retain/{study.retain_name}_log_lik")
    accuracy = run.metric("gsm8k", "gsm8k/accuracy")
    distance = distances.to_retrained(run)
    return {
        "forget_score": drop(run.metric("forget", "forget/phrases_log_lik")),
        "label_drop": drop(run.metric("forget", "forget/label_log_lik")),
        "retention": last(retention(retain)) if len(retain) > 1 else math.nan,
        "accuracy_before": first(accuracy),
        "accuracy_after": last(accuracy) if len(accuracy) > 1 else math.nan,
        "accuracy_change": -drop(accuracy),
        "distance_before": first(distance),
        "distance_after": last(distance) if len(distance) > 1 else math.nan,
        "margin_before": first(run.metric("forget", "forget/label_margin")),
    }


@dataclass
class OutcomeRow:
    """One path under one objective: estimates over seeds, and whether its forget score is the lowest of all paths."""

    objective: str
    path: TrainingPath
    seeds: int
    values: dict[str, Estimate]
    slowest: bool = False


def summarize(study: Study, distances: Distances) -> list[OutcomeRow]:
    """The rows of the closing table, objective by objective; paths without a finished run, or without any measure, have no row."""
    rows: list[OutcomeRow] = []
    for objective in study.objectives:
        group: list[OutcomeRow] = []
        for path in study.paths:
            outcomes = [outcome(study, run, distances) for run in study.unlearned(objective, path)]
            if outcomes:
                values = {measure: estimate(one[measure] for one in outcomes) for measure in MEASURES}
                if any(value.n for value in values.values()):
                    group.append(OutcomeRow(objective, path, len(outcomes), values))
        measured = [row for row in group if row.values["forget_score"].n]
        if len(measured) > 1:
            min(measured, key=lambda row: row.values["forget_score"].mean).slowest = True
        rows += group
    return rows
