"""The theorem: a lower bound on the distance between two paths under gradient ascent, from when it holds, and the corollary.

bound = lower_bound(ascent, problem.test, train(problem, "AU", mu) - train(problem, "UA", mu))
bound.distance(200), bound.t0, bound.violated_from(tolerance=0.01)
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from unlearn_lightning.theory.linear import Array, Ascent, back, times


@dataclass(frozen=True)
class Bound:
    """Holds the theorem's constants, each (B,)."""

    rho: Array
    """rho* = <P Delta_0, M P Delta_0> / ||P Delta_0||^2, the mean growth per step of the gap inside the forget rows' span."""
    sigma: Array
    """The smallest non-zero singular value of X_test P."""
    inside: Array
    """||P Delta_0||."""
    outside: Array
    """C_0 = ||X_test||_op ||(I - P) Delta_0||: what ascent leaves as it is."""
    test_rows: int

    @property
    def t0(self) -> Array:
        """Returns (B,) whole steps; the bound holds at every t >= max(t0, 0)."""
        with np.errstate(divide="ignore"):  # C_0 = 0: from the start
            real = np.log(2 * self.outside / (self.sigma * self.inside)) / np.log1p(self.rho)
        return np.maximum(np.ceil(real), 0)

    def log_distance(self, step: float | Array) -> Array:
        """Returns (B,) the natural log of the bound, for any step."""
        return 2 * np.log(self.sigma * self.inside) + 2 * step * np.log1p(self.rho) - np.log(4 * self.test_rows)

    def distance(self, step: float | Array) -> Array:
        """Returns (B,) sigma_U^2 ||P Delta_0||^2 (1 + rho*)^(2t) / (4m)."""
        return np.exp(self.log_distance(step))

    def violated_from(self, tolerance: float) -> Array:
        """(B,) the corollary's t*: from here on at least one of the two paths is further than `tolerance` from any retrained model.

        Two models within `tolerance` of a third lie within 4 x tolerance of each other, which the bound then excludes.

        Raises:
            ValueError: tolerance is not positive.
        """
        if not tolerance > 0:
            raise ValueError(f"tolerance must be greater than 0, got {tolerance}: no unlearned model is equal to the last digit.")
        log_needed = np.log(16 * self.test_rows * tolerance) - 2 * np.log(self.sigma * self.inside)
        return np.maximum(np.ceil(log_needed / (2 * np.log1p(self.rho))), self.t0)


def lower_bound(ascent: Ascent, test: Array, gap: Array) -> Bound:
    """The bound for two paths whose weights differ by `gap` (B, d) before unlearning, on test inputs (B, m, d).

    Yu et al. 2025, arXiv:2510.16629, section 3.

    Raises:
        ValueError: m < k, the test inputs do not see all of X_U's rows, or the two paths agree on the forget rows' span.
    """
    k, m = ascent.basis.shape[-2], test.shape[-2]
    if m < k:
        raise ValueError(
            f"There are m = {m} test rows for k = {k} forget rows. X_test P then has rank {m} < k and says nothing about some of the "
            f"directions that ascent moves: take at least {k} test rows."
        )
    seen = np.linalg.svd(test @ ascent.basis.mT, compute_uv=False)
    if np.any(seen[:, -1] <= m * np.finfo(float).eps * seen[:, 0]):
        raise ValueError(
            f"X_test P has rank below k = {k}: the test inputs leave out a direction of the forget rows' span, along which paths may part "
            "unseen. Use more test rows, or rows that are not all alike."
        )
    along = times(ascent.basis, gap)
    inside = np.linalg.norm(along, axis=-1)
    if np.any(inside <= 1e-14 * np.linalg.norm(gap, axis=-1)):
        raise ValueError(
            "The two paths end at the same weights as far as X_U's rows see them (P Delta_0 = 0), so ascent cannot drive them apart and "
            "there is nothing to bound. Compare two different orders, on data that differ."
        )
    rho = (ascent.growth * along**2).sum(-1) / inside**2
    outside = np.linalg.norm(test, 2, axis=(-2, -1)) * np.linalg.norm(gap - back(ascent.basis, along), axis=-1)
    return Bound(rho, seen[:, -1], inside, outside, m)
