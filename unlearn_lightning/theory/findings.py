"""The theorem measured: distances of all pairs of orders by step, the bound beside them, and what the corollary says.

found = measure(Setup(), seeds=range(20), tolerance=0.01)
found.pairs[0].margin()           # (B,) smallest distance / bound from t0 on: never below 1
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from unlearn_lightning.theory.bound import Bound, lower_bound
from unlearn_lightning.theory.linear import FORGET, Array, Ascent, Problem, distance, train
from unlearn_lightning.theory.setup import Setup, draw


@dataclass(frozen=True)
class PathPair:
    """Holds what two orders have between them: their distance by step (T + 1, B), the bound, and t* (B,)."""

    orders: tuple[str, str]
    distance: Array
    bound: Bound
    t_star: Array

    @property
    def name(self) -> str:
        """Names the two orders of the pair, joined by a dash."""
        return " – ".join(self.orders)

    def log_bound(self) -> Array:
        """Returns (T + 1, B) the natural log of the bound; nan before t0, where it says nothing."""
        steps = np.arange(len(self.distance), dtype=np.float64)[:, None]
        return np.where(steps >= self.bound.t0, self.bound.log_distance(steps), np.nan)

    def margin(self) -> Array:
        """Returns (B,) the smallest ratio of distance to bound from t0 on; nan where the steps end before t0."""
        ratios = np.log(self.distance) - self.log_bound()
        smallest = np.where(np.isnan(ratios), np.inf, ratios).min(0)
        return np.where(np.isinf(smallest), np.nan, np.exp(smallest))


@dataclass(frozen=True)
class Theorem:
    """Holds what was measured. `disagreement` is the largest difference of recursion and closed form, relative to the weights' norm."""

    setup: Setup
    seeds: tuple[int, ...]
    tolerance: float
    steps: int
    problem: Problem
    ascent: Ascent
    starts: dict[str, Array]
    """order -> theta_0 (B, d)."""
    retrained: Array
    pairs: list[PathPair]
    to_retrained: dict[str, Array]
    """order -> RE distance by step (T + 1, B)."""
    disagreement: float

    def corollary_holds(self, pair: PathPair) -> tuple[int, int]:
        """Counts at how many of the (step >= t*, seed) at least one of the two is beyond the tolerance, and how many there are."""
        beyond = np.maximum(*(self.to_retrained[order] for order in pair.orders)) > self.tolerance
        claimed = np.arange(self.steps + 1)[:, None] >= pair.t_star
        return int((beyond & claimed).sum()), int(claimed.sum())


def measure(setup: Setup, seeds: Sequence[int], tolerance: float, steps: int | None = None) -> Theorem:
    """Trains every order, unlearns U, and measures at every step; null `steps` goes a quarter beyond the last t0 and t*.

    Raises:
        ValueError: a degenerate case; the message explains it.
        OverflowError: so many steps leave float64.
    """
    problem = draw(setup, seeds)
    ascent = Ascent(problem.stages[FORGET], setup.eta)
    starts = {order: train(problem, order, setup.mu) for order in dict.fromkeys(setup.orders)}
    retrained = train(problem, setup.retrained_order, setup.mu)
    bounds = {pair: lower_bound(ascent, problem.test, starts[pair[0]] - starts[pair[1]]) for pair in setup.pairs}
    t_stars = {pair: bound.violated_from(tolerance) for pair, bound in bounds.items()}
    last = max(float(t.max()) for t in t_stars.values())
    steps = steps if steps is not None else int(1.25 * last) + 1
    between: dict[tuple[str, str], list[Array]] = {pair: [] for pair in bounds}
    to_retrained: dict[str, list[Array]] = {order: [] for order in starts}
    disagreement = 0.0
    walks = {order: ascent.recursion(theta) for order, theta in starts.items()}
    for step in range(steps + 1):
        now = {order: ascent.closed_form(theta, step) for order, theta in starts.items()}
        for order, theta in now.items():
            walked = next(walks[order])
            disagreement = max(disagreement, float((np.linalg.norm(walked - theta, axis=-1) / np.linalg.norm(theta, axis=-1)).max()))
            to_retrained[order].append(distance(problem, theta, retrained))
        for one, other in bounds:
            between[one, other].append(distance(problem, now[one], now[other]))
    pairs = [PathPair(pair, np.stack(between[pair]), bound, t_stars[pair]) for pair, bound in bounds.items()]
    curves = {order: np.stack(values) for order, values in to_retrained.items()}
    return Theorem(setup, tuple(seeds), tolerance, steps, problem, ascent, starts, retrained, pairs, curves, disagreement)
