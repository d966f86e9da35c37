"""Beyond the theorem: ascent with a retain term, weight decay, minibatches or NPO's bounded loss, in the same linear model.

    Unlearner("retain term 10", retain_weight=10.0).run(problem, "UA", theta, eta=0.1, steps=400)     # theta_0, theta_1, ... (B, d)

For the first two the gap between two paths still obeys Delta_{t+1} = G Delta_t with a symmetric G, so its fate is an eigenvalue.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from unlearn_lightning.theory.linear import FORGET, Array, Ascent, Problem, back


@dataclass(frozen=True)
class Unlearner:
    """One step is: ascent on the forget loss, minus eta x retain_weight x the retain loss' gradient, minus eta x weight_decay x theta.

    Args:
        name: for tables.
        retain_weight: lambda, of the gradient of the mean squared retain error; a float or one number per seed, (B,).
        weight_decay: a float or (B,).
        batch_size: forget rows per step, drawn anew each epoch and for each path; null for all.
        npo_beta: NPO's beta; null for plain ascent. A row's squared error stands for its negative log-likelihood.
    """

    name: str
    retain_weight: float | Array = 0.0
    weight_decay: float | Array = 0.0
    batch_size: int | None = None
    npo_beta: float | None = None

    @property
    def gap_is_linear(self) -> bool:
        """Says whether the gap between two paths is multiplied by one matrix in each step."""
        return self.batch_size is None and self.npo_beta is None

    def run(self, problem: Problem, order: str, theta: Array, eta: float, seeds: tuple[int, ...] = ()) -> Iterator[Array]:
        """Yields theta_0, theta_1, ..., each (B, d), without end. `seeds` (B,) decide the minibatches, together with the order's name."""
        forget, retain, start = problem.stages[FORGET], problem.retain(order), theta
        k, n = forget.labels.shape[-1], retain.labels.shape[-1]
        if self.batch_size is not None and not 1 <= self.batch_size <= k:
            raise ValueError(f"batch_size must lie between 1 and the number of forget rows, {k}; got {self.batch_size}.")
        batches = [self._batches(k, seed, order) for seed in seeds or range(len(theta))] if self.batch_size else []
        reference = forget.residuals(start) ** 2
        decay, weight = (np.asarray(value)[..., None] for value in (self.weight_decay, self.retain_weight))
        while True:
            yield theta
            residuals = forget.residuals(theta)
            slope = residuals / k
            if self.npo_beta is not None:
                slope = slope * npo_weight(residuals**2 - reference, self.npo_beta)
            if batches:
                slope = slope * np.stack([next(one) for one in batches]) * k / self.batch_size
            step = back(forget.inputs, slope) - weight / n * back(retain.inputs, retain.residuals(theta)) - decay / 2 * theta
            theta = theta + 2 * eta * step

    def _batches(self, k: int, seed: int, order: str) -> Iterator[Array]:
        """Yields masks (k,) of the rows of each step; an epoch's last batch may be short of rows, which then come from the next epoch."""
        rng = np.random.default_rng([seed, 2, *order.encode()])
        waiting: list[int] = []
        assert self.batch_size is not None
        while True:
            chosen: set[int] = set()
            while len(chosen) < self.batch_size:
                # A new epoch's rows that this batch holds already come last, so that they keep their turn.
                waiting = waiting or sorted(rng.permutation(k).tolist(), key=lambda row: row not in chosen)
                chosen.add(waiting.pop())
            yield np.isin(np.arange(k), list(chosen)).astype(np.float64)


def npo_weight(excess: Array, beta: float) -> Array:
    """2 sigma(-beta x excess): NPO's gradient as a multiple of ascent's; 1 at the reference model, 0 far from it.

    From -(2/beta) log sigma(-beta (log pi - log pi_ref)), Zhang et al. 2024, arXiv:2404.05868, eq. 3, with log pi - log pi_ref = -excess.
    """
    return 1 - np.tanh(beta * excess / 2)


def gap_matrix(unlearner: Unlearner, problem: Problem, order: str, eta: float) -> Array:
    """G (B, d, d) of Delta_{t+1} = G Delta_t: (1 - eta w) I + (2 eta / k) X_U' X_U - lambda (2 eta / n) X_R' X_R.

    Raises:
        ValueError: the unlearner's gap is not linear.
    """
    if not unlearner.gap_is_linear:
        raise ValueError(f"The gap of {unlearner.name!r} is not multiplied by one matrix: minibatches and NPO have none.")
    forget, retain = problem.stages[FORGET].inputs, problem.retain(order).inputs
    decay, weight = (np.asarray(value)[..., None, None] for value in (unlearner.weight_decay, unlearner.retain_weight))
    moved = forget.mT @ forget / forget.shape[-2] - weight * (retain.mT @ retain) / retain.shape[-2]
    return (1 - eta * decay) * np.eye(forget.shape[-1]) + 2 * eta * moved


def predicted_rate(unlearner: Unlearner, problem: Problem, order: str, eta: float) -> Array:
    """(B,) growth of log d per step in the long run, 2 log of G's largest absolute eigenvalue.

    Where only the weight decay or nothing at all changes a direction that no forget row sees, that eigenvalue is at least 1 - eta w: a
    rate of 0 is a gap that stays.
    """
    eigenvalues = np.linalg.eigvalsh(gap_matrix(unlearner, problem, order, eta))
    return 2 * np.log(np.abs(eigenvalues).max(-1))


def critical_decay(problem: Problem, eta: float) -> Array:
    """Returns (B,) the weight decay from which no direction grows: lambda_max(M) / eta = (2/k) sigma_max(X_U)^2."""
    return Ascent(problem.stages[FORGET], eta).growth[:, 0] / eta


def critical_retain_weight(problem: Problem, order: str) -> Array:
    """(B,) the retain weight from which no direction grows; inf where forget rows leave the retain rows' span.

    Inside the span it is the largest eigenvalue of (2/k) X_U N^+ X_U' with N = (2/n) X_R' X_R. Outside of it a direction exists that the
    retain loss does not see at all and along which ascent still grows, for any weight.
    """
    forget, retain = problem.stages[FORGET].inputs, problem.retain(order).inputs
    inverse = np.linalg.pinv(retain.mT @ retain / retain.shape[-2], hermitian=True)
    leak = np.linalg.norm(forget - forget @ (np.linalg.pinv(retain) @ retain), axis=(-2, -1))
    weight = np.linalg.eigvalsh(forget @ inverse @ forget.mT / forget.shape[-2])[:, -1]
    return np.where(leak > 1e-9 * np.linalg.norm(forget, axis=(-2, -1)), np.inf, weight)


def stable_retain_weight(problem: Problem, order: str, eta: float) -> Array:
    """Returns (B,) the retain weight above which the retain term's own descent is unstable at this step size: 2 / lambda_max(N)."""
    retain = problem.retain(order).inputs
    return retain.shape[-2] / (eta * np.linalg.norm(retain, 2, axis=(-2, -1)) ** 2)
