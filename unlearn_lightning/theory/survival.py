"""Where exponential divergence survives and where it stops: every unlearner run for real, over seeds.

for row in survival(Setup(), seeds=range(20)):
    print(row.unlearner, row.predicted, row.late, row.fate)
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice

import numpy as np

from unlearn_lightning.records.statistics import Estimate, estimate, growth_rate
from unlearn_lightning.theory.extensions import (
    Unlearner,
    critical_decay,
    critical_retain_weight,
    predicted_rate,
    stable_retain_weight,
)
from unlearn_lightning.theory.linear import Array, Problem, distance, train
from unlearn_lightning.theory.setup import Setup, draw

KEPT = 0.7
"""A growth rate counts as constant while the second half keeps this share of it; a distance growing as a power of t would keep 0.43."""


@dataclass(frozen=True)
class Survival:
    """Holds what became of one unlearner: the distance between the first two orders by step, its growth, and what becomes of it."""

    group: str
    unlearner: str
    distance: Array
    """(T + 1, B) RE distance between the two orders."""
    to_retrained: Array
    """(T + 1, 2, B) RE distance of each order to the retrained model."""
    predicted: Estimate
    """Long-run growth of log d per step by the gap's largest eigenvalue; no number where the gap is not linear."""

    @property
    def middle(self) -> Estimate:
        """Returns the growth of log d per step in the second quarter of the steps, over seeds."""
        return estimate(self._rates(0.25, 0.5))

    @property
    def late(self) -> Estimate:
        """Returns the growth of log d per step in the last quarter of the steps, over seeds."""
        return estimate(self._rates(0.75, 1.0))

    @property
    def fate(self) -> str:
        """Names how it grows, `exponential`, `slows down`, `stops` or `shrinks`, as far as the intervals over seeds tell."""
        late = self.late
        if late.low > 0:
            drop = estimate(b - KEPT * a for a, b in zip(self._rates(0.25, 0.5), self._rates(0.75, 1.0), strict=True))
            return "exponential" if drop.low > 0 else "slows down"
        return "shrinks" if late.high < 0 else "stops"

    def _rates(self, start: float, end: float) -> list[float]:
        last = len(self.distance) - 1
        steps = range(round(start * last), round(end * last) + 1)
        return [growth_rate({step: float(self.distance[step, seed]) for step in steps}) for seed in range(self.distance.shape[1])]


def survival(setup: Setup, seeds: Sequence[int], steps: int = 400) -> Iterator[Survival]:
    """Runs every unlearner from the first two orders.

    The retain term is tried twice: with the setup's retain rows, and with twice as many rows as dimensions, where they leave ascent no
    direction of its own. Weights of "0.5 x critical" and such are multiples of each seed's own critical value.
    """
    order = setup.orders[0]
    few = draw(setup, seeds)
    stages = len(setup.retrained_order)
    many_setup = replace(setup, rows=-(-2 * setup.dimension // stages))
    many = draw(many_setup, seeds)
    decay, weight = critical_decay(few, setup.eta), critical_retain_weight(many, order)
    stable = stable_retain_weight(few, order, setup.eta)
    # The whole retain term's size is told by where its own descent would become unstable, or by where it stops all growth.
    groups: list[tuple[str, Setup, Problem, list[Unlearner]]] = [
        (
            f"retain, n={setup.rows * stages}, d={setup.dimension}", setup, few,
            [Unlearner(f"{share} x stable weight", retain_weight=share * stable) for share in (0.01, 0.1, 0.5)],
        ),
        (
            f"retain, n={many_setup.rows * stages}, d={setup.dimension}", many_setup, many,
            [Unlearner(f"{share} x critical weight", retain_weight=share * weight) for share in (0.1, 0.5, 2.0)],
        ),
        (
            "weight decay", setup, few,
            [Unlearner(f"{share} x critical decay", weight_decay=share * decay) for share in (0.5, 0.9, 2.0)],
        ),
        ("minibatches", setup, few, [Unlearner(f"batches of {size}", batch_size=size) for size in _sizes(setup.forget_rows)]),
        ("bounded as NPO", setup, few, [Unlearner(f"beta {beta}", npo_beta=beta) for beta in (0.1, 1.0, 10.0)]),
    ]  # fmt: skip
    alone: dict[int, Survival] = {}
    for group, own, problem, unlearners in groups:
        if id(problem) not in alone:
            alone[id(problem)] = run(group, Unlearner("ascent alone"), own, problem, seeds, steps)
        yield replace(alone[id(problem)], group=group)
        for unlearner in unlearners:
            yield run(group, unlearner, own, problem, seeds, steps)


def run(group: str, unlearner: Unlearner, setup: Setup, problem: Problem, seeds: Sequence[int], steps: int) -> Survival:
    """Unlearns from the first two orders for `steps` steps and measures after each."""
    retrained = train(problem, setup.retrained_order, setup.mu)
    walks = [unlearner.run(problem, order, train(problem, order, setup.mu), setup.eta, tuple(seeds)) for order in setup.orders[:2]]
    between, to_retrained = [], []
    for one, other in islice(zip(*walks, strict=False), steps + 1):
        between.append(distance(problem, one, other))
        to_retrained.append([distance(problem, one, retrained), distance(problem, other, retrained)])
    predicted = predicted_rate(unlearner, problem, setup.orders[0], setup.eta).tolist() if unlearner.gap_is_linear else []
    return Survival(group, unlearner.name, np.stack(between), np.array(to_retrained), estimate(predicted))


def _sizes(rows: int) -> list[int]:
    return sorted({1, max(1, rows // 2)})
