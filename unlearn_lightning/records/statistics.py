"""Arithmetic of what was measured: intervals over seeds, growth rates, forget scores, matched forgetting.

Pure functions of numbers; everything a figure or table says is computed here and tested with numbers to redo by hand.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np

Curve = Mapping[int, float]
"""A quantity by optimizer step."""

PRESENT = 0.5
"""Where a smaller share of a model's responses shows a behaviour, the model does not have it, and there is nothing to forget."""


def number_text(value: float, digits: int | None = None, signed: bool = False) -> str:
    """A number as people read it, with a minus sign and a dash for nan.

    Args:
        value: the number.
        digits: behind the point; null for four significant ones.
        signed: whether a number above zero has a sign; one that rounds to zero never has.
    """
    if math.isnan(value):
        return "–"
    kind = ".4g" if digits is None else f".{digits}f" if abs(value) < 1000 else f",.{digits}f"
    text = format(value, f"+{kind}" if signed else kind)
    return (text if float(text.replace(",", "")) else format(0.0, kind)).replace("-", "−")


@dataclass(frozen=True)
class Estimate:
    """A mean over seeds with the half width of its 95% t-interval (nan below two seeds; mean nan without any)."""

    mean: float
    half_width: float
    n: int

    @property
    def low(self) -> float:
        """The lower end of the 95% confidence interval."""
        return self.mean - self.half_width

    @property
    def high(self) -> float:
        """The upper end of the 95% confidence interval."""
        return self.mean + self.half_width

    def text(self, digits: int | None = 2, signed: bool = False) -> str:
        """For example `7.89 ± 0.41`; an en dash when nothing was measured; for null digits four significant ones."""
        number = number_text(self.mean, digits, signed)
        return number if math.isnan(self.half_width) else f"{number} ± {number_text(self.half_width, digits)}"


def estimate(values: Iterable[float]) -> Estimate:
    """Mean and 95% confidence interval: mean ± t(0.975, n-1) s / sqrt(n). Missing values (nan) are left out."""
    known = np.array([value for value in values if not math.isnan(value)], dtype=float)
    if len(known) == 0:
        return Estimate(math.nan, math.nan, 0)
    if len(known) == 1:
        return Estimate(float(known[0]), math.nan, 1)
    from scipy.special import stdtrit  # `scipy.special` is used because importing `scipy.stats` takes a second.

    half = float(stdtrit(len(known) - 1, 0.975)) * float(known.std(ddof=1)) / math.sqrt(len(known))
    return Estimate(float(known.mean()), half, len(known))


def welch(mine: Estimate, theirs: Estimate) -> Estimate:
    """`mine` minus `theirs` with Welch's 95% interval for unequal variances (Welch 1947); none unless both have two seeds."""
    difference, n = mine.mean - theirs.mean, min(mine.n, theirs.n)
    if math.isnan(mine.half_width + theirs.half_width):
        return Estimate(difference, math.nan, n)
    from scipy.special import stdtrit

    error, freedom = _welch(mine, theirs)
    return Estimate(difference, float(stdtrit(freedom, 0.975)) * error if error else 0.0, n)


def discoveries(pairs: Sequence[tuple[Estimate, Estimate]], rate: float = 0.05) -> list[bool]:
    """Which pairs of means differ by Welch's test at this false discovery rate (Benjamini and Hochberg 1995) over all with intervals."""
    from scipy.special import stdtr
    from scipy.stats import false_discovery_control

    known = {index: _welch(*pair) for index, pair in enumerate(pairs) if not math.isnan(sum(one.half_width for one in pair))}
    found = [False] * len(pairs)
    if known:
        gaps = {index: abs(pairs[index][0].mean - pairs[index][1].mean) for index in known}
        p = [2 * float(stdtr(freedom, -gaps[i] / error)) if error else float(not gaps[i]) for i, (error, freedom) in known.items()]
        for index, adjusted in zip(known, false_discovery_control(p), strict=True):
            found[index] = bool(adjusted <= rate)
    return found


def _welch(mine: Estimate, theirs: Estimate) -> tuple[float, float]:
    """Standard error of the difference and degrees of freedom: sqrt(a + b) and (a + b)² / (a² / (n - 1) + b² / (m - 1)).

    a and b are the squared standard errors of the two means.
    """
    from scipy.special import stdtrit

    a, b = ((one.half_width / float(stdtrit(one.n - 1, 0.975))) ** 2 for one in (mine, theirs))
    return math.sqrt(a + b), (a + b) ** 2 / (a**2 / (mine.n - 1) + b**2 / (theirs.n - 1)) if a + b else math.nan


def log_estimate(values: Iterable[float]) -> tuple[float, float, float]:
    """Geometric mean, low and high: the t-interval of log values, for quantities drawn on a log axis."""
    logs = estimate(math.log(value) for value in values if value > 0)
    return math.exp(logs.mean), math.exp(logs.low), math.exp(logs.high)


@dataclass(frozen=True)
class Share:
    """`hits` of `n` with the 95% Wilson score interval (Wilson 1927), which stays inside [0, 1] and is honest at 0 and n.

    `left_out` are those that could not be counted.
    """

    hits: int
    n: int
    left_out: int = 0

    @property
    def interval(self) -> tuple[float, float]:
        """Wilson's 95% confidence interval of the share; from 0 to 1 where nothing was counted."""
        return _wilson(self.hits, self.n) if self.n else (0.0, 1.0)


@cache
def _wilson(hits: int, n: int) -> tuple[float, float]:
    from scipy.stats import binomtest  # It takes a second to import, so that only a report with shares waits for it.

    low, high = binomtest(hits, n).proportion_ci(0.95, "wilson")
    return float(low), float(high)


def growth_rate(distance: Curve) -> float:
    """Least-squares slope of log d against the step, per step: the empirical sibling of the theorem's 2 log(1 + rho*)."""
    points = [(step, math.log(value)) for step, value in distance.items() if value > 0]
    if len({step for step, _ in points}) < 2:
        return math.nan
    steps, logs = np.array(points, dtype=float).T
    steps = steps - steps.mean()
    return float(steps @ logs / (steps @ steps))


def finite(curve: Curve) -> dict[int, float]:
    """The curve without the steps at which it is no finite number."""
    return {step: value for step, value in curve.items() if math.isfinite(value)}


def drop(log_lik: Curve) -> float:
    """Value at the first measured step minus the value at the last; nan with fewer than two steps."""
    return math.nan if len(log_lik) < 2 else log_lik[min(log_lik)] - log_lik[max(log_lik)]


def drops(log_lik: Curve) -> dict[int, float]:
    """The decrease since the first measured step, by step (the forget score so far)."""
    return {step: log_lik[min(log_lik)] - value for step, value in log_lik.items()}


def matched_score(scores: Sequence[Curve]) -> float:
    """The largest forget score that every path reaches; nan when one path never forgets anything."""
    reached = min((max(finite(curve).values(), default=-math.inf) for curve in scores), default=-math.inf)
    return reached if reached > 0 else math.nan


def crossing_step(score: Curve, target: float) -> float:
    """The first (fractional) step at which the linearly interpolated score reaches `target`; nan when it never does."""
    before: tuple[int, float] | None = None
    for step, value in sorted(finite(score).items()):
        if value >= target:
            if before is None or value == before[1]:
                return float(step)
            return before[0] + (step - before[0]) * (target - before[1]) / (value - before[1])
        before = step, value
    return math.nan


def interpolate(curve: Curve, step: float, beside: Curve | None = None) -> float:
    """The curve at a fractional step, linear between measured steps; nan outside of them, or where it was not measured near the step.

    Near means: at the step itself, or on both sides of it at measurements that lie no further apart than twice those of `beside`, the
    curve on which the step was found. A value at step 1 between measurements at 0 and 16 alone would be made up.

    Args:
        curve: what is read.
        step: where.
        beside: the curve whose measurements around the step say what is near; null for the curve itself.
    """
    known = finite(curve)
    if math.isnan(step) or not known or not min(known) <= step <= max(known):
        return math.nan
    if beside is not None and measured_gap(known, step) > 2 * around(finite(beside), step):
        return math.nan
    steps = sorted(known)
    return float(np.interp(step, steps, [known[s] for s in steps]))


def measured_gap(curve: Curve, step: float) -> int:
    """How far apart the measurements before and after a step within the curve lie; 0 at a measured step."""
    return min(s for s in curve if s >= step) - max(s for s in curve if s <= step)


def around(curve: Curve, step: float) -> int:
    """The curve's measuring interval around a step: also at a measured one, where it is that which ends or else begins there."""
    inside = measured_gap(curve, step)
    earlier, later = [s for s in curve if s < step], [s for s in curve if s > step]
    return inside or (int(step) - max(earlier) if earlier else min(later) - int(step) if later else 0)
