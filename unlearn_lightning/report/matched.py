"""Paths compared at equal forgetting. They forget at different speeds, so equal steps compare unequal amounts of it.

For each objective and seed the target is the largest forget score that every path reaches. Utility and accuracy are read
off at the (fractional) step at which a path first reaches it, linear between measured steps.
"""

from dataclasses import dataclass

from unlearn_lightning.report.outcomes import first, utility
from unlearn_lightning.report.statistics import Estimate, crossing_step, drops, estimate, interpolate, matched_score
from unlearn_lightning.report.study_data import Study, TrainingPath


@dataclass
class MatchedRow:
    """One path under one objective at the matched forget score (nats), over the seeds in which a match exists."""

    objective: str
    path: TrainingPath
    score: Estimate
    step: Estimate
    utility: Estimate
    accuracy_change: Estimate


def matched_forgetting(study: Study) -> list[MatchedRow]:
    """Rows objective by objective; a seed needs at least two paths that forget at all."""
    rows = []
    for objective in study.objectives:
        found: dict[int, list[tuple[float, float, float, float]]] = {}
        for seed in study.seeds:
            runs = {path.index: run for path in study.paths for run in study.unlearned(objective, path) if run.seed == seed}
            scores = {index: drops(run.metric("forget", "forget/phrases_log_lik")) for index, run in runs.items()}
            scores = {index: score for index, score in scores.items() if score}
            target = matched_score(list(scores.values()))
            if len(scores) < 2 or target != target:
                continue
            for index, score in scores.items():
                step = crossing_step(score, target)
                kept = utility(runs[index].metric("retain", f"retain/{study.retain_name}_log_lik"))
                accuracy = runs[index].metric("gsm8k", "gsm8k/accuracy")
                change = interpolate(accuracy, step) - first(accuracy)
                found.setdefault(index, []).append((target, step, interpolate(kept, step), change))
        for index, values in sorted(found.items()):
            rows.append(MatchedRow(objective, study.paths[index], *(estimate(column) for column in zip(*values, strict=True))))
    return rows
