"""What the table of methods is made of: a study's rows, and with them equal forgetting and the noise between retrained models."""

import math
from collections.abc import Iterator
from itertools import combinations
from pathlib import Path

from scripts.study_results.measured import NAN, Row, measured, prediction_vectors
from unlearn_lightning.inference.divergence import squared_distance
from unlearn_lightning.records.relearning import relearned, relearning_robustness
from unlearn_lightning.records.study_data import Study, load_study
from unlearn_lightning.report.sections.matched import matched_in_seed

NOISE = "between retrained"
STEPS, NOT_BACK, ROBUSTNESS = "steps to relearn", "not back by relearning", "relearning robustness"
"""Of the retrained model (before) and of the unlearned one (after): steps, and 1 where they are censored; and R, which has one number."""


def rows_of(folder: Path) -> tuple[dict[str, str], list[Row]]:
    """What made the numbers, and all rows."""
    made_with, rows = measured(folder)
    study = load_study(folder)
    made_with["local"] = ", ".join(sorted(_local(study)))
    return made_with, [*rows, *_matched(study), *_noise(study), *_relearned(study)]


def _local(study: Study) -> set[str]:
    return {str(run.tags["objective"]) for run in study.finished("unlearn") if run.info.get("local")}


def _named(study: Study) -> dict[str, str]:
    """The study's own name of each objective, by the one that tables print."""
    return {run.objective: str(run.tags["objective"]) for run in study.finished("unlearn")}


def _relearned(study: Study) -> Iterator[Row]:
    """Steps until the forget set is back, by the study's first relearning."""
    named = _named(study)
    for one in relearned(study, next(iter(study.relearning))) if study.relearning else []:
        where = one.seed, one.path.label, named[one.objective]
        both = one.retrained_steps, one.steps
        if one.steps:
            yield Row(*where, STEPS, *(float(steps.count) if steps else NAN for steps in both))
            yield Row(*where, NOT_BACK, *(float(steps.censored) if steps else NAN for steps in both))
            yield Row(*where, ROBUSTNESS, NAN, relearning_robustness(one.unlearned, one.retrained))


def _matched(study: Study) -> Iterator[Row]:
    """Retention and accuracy where all paths of an objective and seed have forgotten equally much."""
    named = _named(study)
    for objective in study.objectives:
        for seed in study.seeds:
            for index, match in matched_in_seed(study, objective, seed).items():
                where = seed, study.paths[index].label, named[objective]
                yield Row(*where, "retention at equal forgetting", NAN, match.retention)
                yield Row(*where, "accuracy change at equal forgetting", NAN, match.accuracy_change)


def _noise(study: Study) -> Iterator[Row]:
    """Squared distances between the retrained models of every two seeds, which differ in the order of their examples alone."""
    models = {run.seed: prediction_vectors(run.folder) for run in study.finished("stage") if run.tags.get("retrained")}
    for one, other in combinations(sorted(seed for seed, found in models.items() if found), 2):
        distance = squared_distance(models[one][max(models[one])], models[other][max(models[other])])
        yield Row(one, f"seed {other}", "", NOISE, NAN, distance if math.isfinite(distance) else NAN)
