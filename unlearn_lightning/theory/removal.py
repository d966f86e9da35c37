"""The non-local contrast: removal by Newton steps on the retained stages, which ends at the retrained model from any path.

    removal = newton_removal(problem, "A", theta, mu=0.1)
    removal.theta, removal.radius            # within `radius` of the retrained model, certified without training it

The one-step removal of Guo et al. 2020 (arXiv:1911.03030), which subtracts H^-1 times the gradient of the loss without the removed rows.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from unlearn_lightning.theory.linear import Array, Problem, Rows, back, times


@dataclass(frozen=True)
class Removal:
    """Holds weights (B, d), and a certified bound (B,) on their distance from the retrained model's."""

    theta: Array
    radius: Array


def stage_gradient(rows: Rows, theta: Array, previous: Array, mu: float) -> Array:
    """Returns half the gradient of ||X theta - y||^2 + mu ||theta - previous||^2, (B, d)."""
    return back(rows.inputs, rows.residuals(theta)) + mu * (theta - previous)


def newton_step(rows: Rows, theta: Array, previous: Array, mu: float) -> Array:
    """Takes one Newton step to theta - H^-1 g with H = X'X + mu I, (B, d).

    H^-1 g = (g - X' (X X' + mu I)^-1 X g) / mu, a system of n unknowns.
    """
    x, gradient = rows.inputs, stage_gradient(rows, theta, previous, mu)
    inner = np.linalg.solve(x @ x.mT + mu * np.eye(x.shape[-2]), times(x, gradient)[..., None])[..., 0]
    return theta - (gradient - back(x, inner)) / mu


def newton_removal(problem: Problem, retained: str, theta: Array, mu: float, share: float = 1.0) -> Removal:
    """One Newton step for each retained stage in order, starting from an unlearned or trained model.

    A stage's loss is quadratic, so one step from anywhere lands on its minimum: the starting model drops out, and with it the path.
    The radius adds up ||gradient|| / mu, since a stage's loss grows at least as mu/2 of the squared distance from its minimum (halved
    loss), and an error in a stage's anchor shrinks on the way through the next stage.

    Args:
        problem: with the retained stages' rows.
        retained: the retrained model's order, such as "AB".
        theta: (B, d) where to start.
        mu: the stages' pull.
        share: share of each stage's rows that the step may read, from the first on. Below 1 the removal must believe in the rest, and
            the radius is still computed with all of them.

    Raises:
        ValueError: share leaves no row, or `retained` names no stage.
    """
    if not 0 < share <= 1:
        raise ValueError(f"share must be greater than 0 and at most 1, got {share}.")
    if not retained:
        raise ValueError("Without a retained stage the retrained model is theta = 0, and there is nothing to step towards.")
    anchor, radius = np.zeros_like(theta), np.zeros(len(theta))
    for letter in retained:
        rows = problem.stages[letter]
        seen = max(1, round(share * rows.labels.shape[-1]))
        known = Rows(rows.inputs[:, :seen], rows.labels[:, :seen])
        theta = newton_step(known, theta, anchor, mu)
        radius = radius + np.linalg.norm(stage_gradient(rows, theta, anchor, mu), axis=-1) / mu
        anchor = theta
    return Removal(theta, radius)
