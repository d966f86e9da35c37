"""How soon a model knows again what it has unlearned: steps to relearn, and the same of a model that never knew it.

steps_to_relearn({0: -7.0, 1: -3.0, 2: -0.1}, back=-0.15)       # Steps(2): the first measured step at which the level is reached
robustness_ratio(Steps(2), Steps(24, censored=True))            # Ratio(0.083, "at most"): the retrained model takes more than 24

Hu et al. 2024 (arXiv:2406.13356) relearn from a few examples or from benign text; `Relearned` also has OpenUnlearning's robustness R.
"""

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

from unlearn_lightning.records.statistics import Curve, Estimate, estimate, finite
from unlearn_lightning.records.study_data import RunRecord, Study, TrainingPath

Bound = Literal["", "at least", "at most", "unknown"]


@dataclass(frozen=True)
class Steps:
    """Steps to relearn.

    Attributes:
        count: the first measured step at which the level was back, or else the last one that was measured.
        censored: it was not back by then, so that the true number is larger.
    """

    count: int
    censored: bool = False

    @property
    def text(self) -> str:
        """For example `5`, or `> 24` where it was not back after 24 steps."""
        return f"> {self.count}" if self.censored else str(self.count)


def steps_to_relearn(level: Curve, back: float) -> Steps | None:
    """The least measured n with s(n) >= back, not interpolated between measurements; 0 where nothing was away.

    Args:
        level: a score s that grows with what is remembered, by relearning step; steps at which it is no finite number are left out.
        back: the score that counts as back, usually s_0 - eps with s_0 before unlearning (Hu et al. 2024, arXiv:2406.13356).

    Returns:
        The step, censored at the last measured one; None where nothing was measured.
    """
    known = finite(level)
    reached = [step for step, value in known.items() if value >= back]
    if reached:
        return Steps(min(reached))
    return Steps(max(known), censored=True) if known else None


@dataclass(frozen=True)
class Ratio:
    """A ratio of steps, exact or a bound; nan where it is undefined or nothing is known."""

    value: float
    bound: Bound = ""


def robustness_ratio(unlearned: Steps, retrained: Steps) -> Ratio:
    """Steps to relearn of the unlearned model over those of the retrained one: 1 as if never learned, 0 where nothing was forgotten.

    Of a censored number only that it is larger than n_max is known: with the unlearned model's the ratio is at least n_max / n_r, with the
    retrained model's at most n_u / n_max, with both unknown. Where the retrained model knew it from the start it is undefined.
    """
    if retrained.count == 0 and not retrained.censored:
        return Ratio(math.nan)
    if unlearned.censored and retrained.censored:
        return Ratio(math.nan, "unknown")
    if unlearned.count == 0:
        return Ratio(0.0)
    return Ratio(unlearned.count / retrained.count, "at least" if unlearned.censored else "at most" if retrained.censored else "")


def mean_ratio(ratios: Iterable[Ratio]) -> tuple[Estimate, Bound]:
    """The mean of ratios, and what it bounds: where one is a lower bound, so is the mean; of bounds on both sides nothing is known."""
    known = [ratio for ratio in ratios if not math.isnan(ratio.value)]
    bounds = {ratio.bound for ratio in known} - {""}
    if len(bounds) > 1:
        return estimate([]), "unknown"
    return estimate(ratio.value for ratio in known), bounds.pop() if bounds else ""


def relearning_robustness(unlearned: Curve, retrained: Curve) -> float:
    """R = min((s_r' - s_r) / (s_u' - s_u), 1): the retrained model's gain over the unlearned one's (OpenUnlearning, arXiv:2506.12618).

    1 where the unlearned model gained no more than the retrained one did, also where it gained nothing (a denominator of 0 or below).

    Args:
        unlearned: a score that grows with what is remembered, by relearning step; its first and its last finite values are taken.
        retrained: the same of the retrained model.

    Returns:
        At most 1, below 0 where the retrained model's score fell; nan where either was measured less than twice.
    """
    gains = [known[max(known)] - known[min(known)] if len(known := finite(curve)) > 1 else math.nan for curve in (retrained, unlearned)]
    if any(map(math.isnan, gains)):
        return math.nan
    return min(gains[0] / gains[1], 1.0) if gains[1] > 0 else 1.0


@dataclass(frozen=True)
class Relearned:
    """One unlearned model and the retrained model of its path and seed under the same further fine-tuning.

    Attributes:
        objective, path, seed: of the unlearned model.
        before: the score before unlearning, s_0.
        tolerance: eps; at s_0 - eps the score counts as back.
        unlearned, retrained: the score by relearning step; the retrained model's is empty where it is not known.
    """

    objective: str
    path: TrainingPath
    seed: int
    before: float
    tolerance: float
    unlearned: Curve
    retrained: Curve

    @cached_property
    def steps(self) -> Steps | None:
        """Steps to relearn of the unlearned model."""
        return steps_to_relearn(self.unlearned, self.before - self.tolerance)

    @cached_property
    def retrained_steps(self) -> Steps | None:
        """Steps of the retrained model to the same level, which is one of this path."""
        return steps_to_relearn(self.retrained, self.before - self.tolerance)

    @property
    def ratio(self) -> Ratio:
        """The robustness ratio; nan where one of the two was not measured."""
        return robustness_ratio(self.steps, self.retrained_steps) if self.steps and self.retrained_steps else Ratio(math.nan)


def relearned(study: Study, name: str) -> list[Relearned]:
    """All unlearned models of a study that one of its relearnings has finished on, in the order of objectives, paths and seeds.

    Args:
        study: whose study.json says what each relearning measures.
        name: of the relearning.
    """
    said = study.relearning[name]
    runs = {run.parents[0]: run for run in study.finished("relearn") if run.tags.get("relearning") == name and run.parents}
    return [found for objective in study.objectives for path in study.paths for found in _of(study, objective, path, said, runs)]


def _of(study: Study, objective: str, path: TrainingPath, said: dict[str, object], runs: dict[str, RunRecord]) -> Iterator[Relearned]:
    metric, tolerance = str(said["metric"]), float(str(said["tolerance"]))
    probe = metric.partition("/")[0]
    for start in study.unlearned(objective, path):
        level = finite(start.metric(probe, metric))
        if start.key not in runs or not level:
            continue
        never = study.retrained(start.seed, path.stages)
        retrained = runs[never.key].metric(probe, metric) if never and never.key in runs else {}
        own = runs[start.key].metric(probe, metric)
        yield Relearned(objective, path, start.seed, level[min(level)], tolerance, own, retrained)


def first_back(found: Sequence[Relearned], path: TrainingPath) -> bool | None:
    """Whether, of one seed's paths, this one is back after fewer steps than every other; None where it shares the first place.

    A path that is not back counts as later than all that are, and two that are not back share a place.
    """
    places = {one.path: math.inf if one.steps.censored else one.steps.count for one in found if one.steps}
    least = min(places.values(), default=math.inf)
    first = [one for one, place in places.items() if place == least]
    return None if path in first and len(first) > 1 else first == [path]
