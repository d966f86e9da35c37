"""Staged ridge regression and gradient ascent on its forget stage; all seeds at once.

    theta = train(problem, "UA", mu=1.0)               # U first, then A, each pulled to where the one before ended
    Ascent(problem.stages["U"], eta=0.1).closed_form(theta, 50)

Axes: B seeds, n rows, d dimensions, k forget rows, m test rows.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from unlearn_lightning.inference.divergence import squared_distances

Array = NDArray[Any]  # float64
FORGET = "U"


@dataclass(frozen=True)
class Rows:
    """Holds one stage's inputs (B, n, d) and labels (B, n)."""

    inputs: Array
    labels: Array

    def residuals(self, theta: Array) -> Array:
        """Returns (B, n) the predictions minus the labels."""
        return times(self.inputs, theta) - self.labels


@dataclass(frozen=True)
class Problem:
    """Holds the stages by their letter, `U` being the forget stage, and the test inputs (B, m, d)."""

    stages: Mapping[str, Rows]
    test: Array

    def retain(self, order: str) -> Rows:
        """Returns the rows of all stages of `order` but U, one below the other."""
        kept = [self.stages[letter] for letter in order if letter != FORGET]
        return Rows(np.concatenate([r.inputs for r in kept], 1), np.concatenate([r.labels for r in kept], 1))


def times(matrix: Array, vector: Array) -> Array:
    """Multiplies (B, n, d) by (B, d), which gives (B, n)."""
    return (matrix @ vector[..., None])[..., 0]


def back(matrix: Array, vector: Array) -> Array:
    """Multiplies the transpose of (B, n, d) by (B, n), which gives (B, d)."""
    return (vector[..., None, :] @ matrix)[..., 0, :]


def ridge(rows: Rows, previous: Array, mu: float) -> Array:
    """(X'X + mu I)^-1 (X'y + mu theta_prev): the fit that stays near `previous`, (B, d).

    Solved as theta_prev + X' (X X' + mu I)^-1 (y - X theta_prev), a system of n unknowns, or of d where d is smaller.

    Raises:
        ValueError: mu is not positive. With more dimensions than rows X'X has no inverse.
    """
    if not mu > 0:
        raise ValueError(f"mu must be greater than 0, got {mu}: without the pull to the previous stage a fit is not unique.")
    x = rows.inputs
    n, d = x.shape[-2:]
    if n <= d:
        weights = np.linalg.solve(x @ x.mT + mu * np.eye(n), -rows.residuals(previous)[..., None])[..., 0]
        return previous + back(x, weights)
    return previous + np.linalg.solve(x.mT @ x + mu * np.eye(d), -back(x, rows.residuals(previous))[..., None])[..., 0]


def train(problem: Problem, order: str, mu: float) -> Array:
    """Fits the stages one after another from theta = 0; (B, d). An order without U gives a retrained model."""
    theta = np.zeros((problem.test.shape[0], problem.test.shape[-1]))
    for letter in order:
        theta = ridge(problem.stages[letter], theta, mu)
    return theta


def distance(problem: Problem, one: Array, other: Array) -> Array:
    """Returns (B,) the RE distance on the test inputs, (1/m) sum_i (x_i' one - x_i' other)^2; definition 2.1 through `divergence`."""
    return squared_distances(times(problem.test, one)[..., None], times(problem.test, other)[..., None])


class Ascent:
    """Gradient ascent on (1/k) ||X_U theta - y_U||^2 with step eta: local unlearning.

    Args:
        forget: X_U (B, k, d) of full row rank, y_U (B, k).
        eta: step size.

    Raises:
        ValueError: eta is not positive, k > d, or X_U lacks full row rank.
    """

    def __init__(self, forget: Rows, eta: float) -> None:
        if not eta > 0:
            raise ValueError(f"eta must be greater than 0, got {eta}: with such a step nothing is unlearned.")
        k, d = forget.inputs.shape[-2:]
        if k > d:
            raise ValueError(
                f"X_U has k = {k} rows in d = {d} dimensions. The theorem is about the over-parameterised model: take at most {d} forget "
                "rows, or more dimensions."
            )
        self.forget, self.eta = forget, eta
        left, self.singular, right = np.linalg.svd(forget.inputs, full_matrices=False)
        self.left: Array = left
        self.basis: Array = right
        """Returns (B, k, d) orthonormal rows that span the rows of X_U: P = basis' basis."""
        lacking = np.flatnonzero(self.singular[:, -1] <= d * np.finfo(float).eps * self.singular[:, 0])
        if len(lacking):
            raise ValueError(
                f"X_U lacks full row rank in {len(lacking)} of {len(self.singular)} draws (the first is number {lacking[0]}): some forget "
                "rows are combinations of others. Drop repeated rows, or draw them from a distribution with a density."
            )

    @cached_property
    def growth(self) -> Array:
        """Returns (B, k) the non-zero eigenvalues of M = (2 eta / k) X_U' X_U, largest first; `basis` holds the eigenvectors."""
        return 2 * self.eta / self.singular.shape[-1] * self.singular**2

    def recursion(self, theta: Array) -> Iterator[Array]:
        """Yields theta_0, theta_1, ...: one ascent step after another, without end."""
        factor = 2 * self.eta / self.forget.labels.shape[-1]
        while True:
            yield theta
            theta = theta + factor * back(self.forget.inputs, self.forget.residuals(theta))

    def closed_form(self, theta: Array, steps: int) -> Array:
        """theta_t at once: along eigenvector i, theta_t - theta_0 = ((1 + lambda_i)^t - 1) (theta_0 - solution of X_U theta = y_U).

        Raises:
            OverflowError: the weights leave float64.
        """
        solution = (self.left.mT @ self.forget.labels[..., None])[..., 0] / self.singular
        with np.errstate(over="ignore"):
            grown = np.expm1(steps * np.log1p(self.growth))
        # The distance squares it.
        if not np.all(grown < 1e150):
            rate = float(self.growth.max())
            raise OverflowError(
                f"After {steps} steps the weights would leave float64: each step multiplies them by up to {1 + rate:.4g}. At most "
                f"{int(345 / np.log1p(rate))} steps fit; take fewer, or a smaller eta."
            )
        return theta + back(self.basis, grown * (times(self.basis, theta) - solution))

    def gap(self, start: Array, steps: int) -> Array:
        """Applies lemma 3.2: returns the gap (B, d) between two ascents after `steps` steps, (I + M)^t Delta_0, from the gap `start`."""
        along = times(self.basis, start)
        return start + back(self.basis, np.expm1(steps * np.log1p(self.growth)) * along)
