"""What Monte-Carlo draws prove about Retrain Equivalence, with exact (Clopper-Pearson) confidence bounds.

Two notions carry an epsilon and a delta, and each has its certificate of violation:

    share_beyond(distances, tolerance=0.01, alpha=0.01)      # P(RE distance > tolerance) is at least this: above delta it is violated
    audit(unlearned, retrained, epsilon=1.0, alpha=0.01)     # no (epsilon, d)-indistinguishability for any d below this

A certificate holds with probability 1 - alpha over the draws. That none is found proves nothing.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from scipy.special import betaincinv, ndtr

from unlearn_lightning.theory.linear import Array


def clopper_pearson(hits: int, draws: int, alpha: float) -> tuple[float, float]:
    """One-sided bounds on a probability after `hits` in `draws`: it lies above the first, and below the second, each with 1 - alpha.

    Clopper and Pearson 1934: quantiles of Beta(hits, draws - hits + 1) and Beta(hits + 1, draws - hits). At 0 hits the upper one is
    1 - alpha^(1/draws).

    Raises:
        ValueError: no draws, impossible hits, or alpha outside (0, 1).
    """
    if draws < 1 or not 0 <= hits <= draws or not 0 < alpha < 1:
        raise ValueError(f"Need 0 <= hits <= draws, at least one draw and 0 < alpha < 1; got {hits} of {draws}, alpha {alpha}.")
    low = float(betaincinv(hits, draws - hits + 1, alpha)) if hits else 0.0
    high = float(betaincinv(hits + 1, draws - hits, 1 - alpha)) if hits < draws else 1.0
    return low, high


@dataclass(frozen=True)
class Beyond:
    """Counts how many of `draws` independent experiments ended further than the tolerance from the retrained model."""

    hits: int
    draws: int
    delta: float
    """Retrain Equivalence with this tolerance fails with a probability of at least this, at confidence 1 - alpha."""


def share_beyond(distances: Array, tolerance: float, alpha: float) -> Beyond:
    """Certifies P(d > tolerance) from independent RE distances (draws,)."""
    hits = int((distances > tolerance).sum())
    return Beyond(hits, len(distances), clopper_pearson(hits, len(distances), alpha)[0])


def audit(unlearned: Array, retrained: Array, epsilon: float, alpha: float) -> float:
    """A lower bound on every delta for which two randomised algorithms are (epsilon, delta)-indistinguishable.

    That notion (certified removal: Guo et al. 2020, arXiv:1911.03030; Sekhari et al. 2021, arXiv:2103.03279) asks for
    P(unlearned in S) <= e^epsilon P(retrained in S) + delta for every set S, and the same with the two exchanged. The first half of the
    draws chooses a half-space S across the difference of their means, for either direction; the second half, which the choice never
    saw, bounds both probabilities. Each of the four bounds errs with alpha / 4 at most.

    Args:
        unlearned: (draws, d) independent outputs of the unlearning algorithm.
        retrained: (draws, d) independent outputs of retraining.
        epsilon: the epsilon of the definition above.
        alpha: the probability with which the bound may be wrong.

    Returns:
        The certified delta; 0 or less where nothing is certified.
    """
    half = min(len(unlearned), len(retrained)) // 2
    direction = unlearned[:half].mean(0) - retrained[:half].mean(0)
    seen = [samples[:half] @ direction for samples in (unlearned, retrained)]
    fresh = [samples[half:] @ direction for samples in (unlearned, retrained)]
    # In S lies what is on the first one's side of the threshold.
    certified = []
    for first, second, sign in ((0, 1, 1.0), (1, 0, -1.0)):
        threshold = _best_threshold(sign * seen[first], sign * seen[second], epsilon)
        inside = [sign * values > threshold for values in (fresh[first], fresh[second])]
        low, _ = clopper_pearson(int(inside[0].sum()), len(inside[0]), alpha / 4)
        _, high = clopper_pearson(int(inside[1].sum()), len(inside[1]), alpha / 4)
        certified.append(low - math.exp(epsilon) * high)
    return max(certified)


def _best_threshold(first: Array, second: Array, epsilon: float) -> float:
    """Finds the threshold c where P(first > c) - e^epsilon P(second > c) is largest on these draws."""
    places = np.sort(np.concatenate([first, second]))
    share_first = 1 - np.searchsorted(np.sort(first), places, side="right") / len(first)
    share_second = 1 - np.searchsorted(np.sort(second), places, side="right") / len(second)
    return float(places[np.argmax(share_first - math.exp(epsilon) * share_second)])


def gaussian_delta(shift: float, noise: float, epsilon: float) -> float:
    """The smallest delta for which N(a, noise^2 I) and N(b, noise^2 I) with ||a - b|| = shift are (epsilon, delta)-indistinguishable.

    Balle and Wang 2018 (arXiv:1805.06530), theorem 8: Phi(s/2 - epsilon/s) - e^epsilon Phi(-s/2 - epsilon/s) with s = shift / noise.
    """
    if shift == 0:
        return 0.0
    s = shift / noise
    return float(ndtr(s / 2 - epsilon / s) - math.exp(epsilon) * ndtr(-s / 2 - epsilon / s))
