"""TOFU's truth ratio in its named variants, its two scores, forget quality and model utility, as functions of log-likelihoods.

    log_r = log_truth_ratio(-1.0, [-2.0, -4.0])         # -2.0: wrong answers are e^2 times less likely, per token
    forget_score(log_r), utility_score(log_r)           # 0.135, 0.865

Maini et al. 2024, arXiv:2401.06121, section 2.2. An answer's likelihood is exp of its mean log-likelihood per token. Everything is computed
from logarithms, so that nothing overflows and no constant has to keep a division from 0, as OpenUnlearning's 1e-10 does.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple

from unlearn_lightning.records import number

Variant = Literal["geometric", "arithmetic", "reciprocal", "prob_mean"]


def log_truth_ratio(correct: float, wrong: Sequence[float], mean: Literal["geometric", "arithmetic"] = "geometric") -> float:
    """Logarithm of r = mean over the wrong answers of their likelihood / likelihood of the correct answer; arXiv:2401.06121, eq. 1.

    Public code disagrees on the mean: OpenUnlearning's is geometric; TOFU's is arithmetic for its forget score and model utility, and
    geometric for its forget quality.

    Args:
        correct: mean log-likelihood of the correct (paraphrased) answer, nats per token.
        wrong: the same of each of k > 0 wrong answers.
        mean: over the wrong answers' likelihoods.

    Returns:
        Nats; nan where correct and wrong answers all have likelihood 0.
    """
    if mean == "geometric":
        return sum(wrong) / len(wrong) - correct
    return _log_sum_exp(wrong) - math.log(len(wrong)) - correct


def truth_ratio(correct: float, wrong: Sequence[float], variant: Variant = "geometric") -> float:
    """The truth ratio under one of its names.

    `geometric` and `arithmetic` are r, in (0, inf), with that mean over the wrong answers (OpenUnlearning; TOFU's model utility).
    `reciprocal` is 1/r with the geometric mean (TOFU's forget quality). `prob_mean` is c / (c + w) = 1 / (1 + r) with the geometric mean w,
    in [0, 1] (OpenUnlearning's option of that name).
    """
    if variant == "reciprocal":
        return _exp(-log_truth_ratio(correct, wrong))
    if variant == "prob_mean":
        return true_share(log_truth_ratio(correct, wrong))
    return _exp(log_truth_ratio(correct, wrong, variant))


def forget_score(log_r: float) -> float:
    """min(r, 1/r): 1 where correct and wrong answers are equally likely, near 0 where either is far likelier.   Returns: in [0, 1]."""
    return math.exp(-abs(log_r))


def utility_score(log_r: float) -> float:
    """max(0, 1 - r): near 1 where the correct answer is far likelier, 0 where it is not likelier.   Returns: in [0, 1]."""
    return 0.0 if log_r >= 0 else -math.expm1(log_r)


def true_share(log_r: float) -> float:
    """1 / (1 + r), the correct answer's share of itself and the mean wrong one.   Returns: in [0, 1]; 0.5 at r = 1."""
    return 1 / (1 + math.exp(log_r)) if log_r <= 0 else math.exp(-log_r) / (1 + math.exp(-log_r))


def normalised_probability(correct: float, wrong: Sequence[float]) -> float:
    """p_correct / (p_correct + sum of p_wrong): TOFU's probability for real authors and world facts, arXiv:2401.06121, section 2.2.2.

    Args: correct, wrong: mean log-likelihoods, nats per token.   Returns: in [0, 1]; nan where all likelihoods are 0.
    """
    return math.exp(correct - _log_sum_exp([correct, *wrong]))


class ForgetQuality(NamedTuple):
    """Result of the two-sample Kolmogorov-Smirnov test.

    Attributes:
        p: p-value in [0, 1]; high where the two models cannot be told apart.
        log10_p: its logarithm to base 10.
        n: truth ratios of the unlearned model.
        n_retrained: truth ratios of the retrained model.
    """

    p: float
    log10_p: float
    n: int
    n_retrained: int


def forget_quality(unlearned: Sequence[float], retrained: Sequence[float]) -> ForgetQuality:
    """TOFU's forget quality: p-value of the two-sided two-sample KS test between two models' truth ratios on the forget set.

    A monotone transform, such as a logarithm or reciprocal, leaves it as it is; another mean over the wrong answers does not. p-values
    of different numbers of examples cannot be compared: TOFU's scripts take 40, 200 or 300, OpenUnlearning 40, 200 or 400.

    Args:
        unlearned: truth ratios, or their logarithms, one per example; what is not finite is left out of both the test and n.
        retrained: the same of the retrained model.

    Raises:
        ValueError: one side has no finite value.
    """
    from scipy.stats import ks_2samp

    ours, theirs = ([value for value in values if math.isfinite(value)] for values in (unlearned, retrained))
    if not ours or not theirs:
        raise ValueError(f"Forget quality compares truth ratios of two models; {len(ours)} and {len(theirs)} of them are finite numbers.")
    found = ks_2samp(ours, theirs)
    p = float(found.pvalue)
    # Where p is too small for a float, the first term of its asymptotic series: 2 exp(-2 D^2 n m / (n + m)).
    exponent = 2 * float(found.statistic) ** 2 * len(ours) * len(theirs) / (len(ours) + len(theirs))
    log10_p = math.log10(p) if p > 0 else (math.log(2) - exponent) / math.log(10)
    return ForgetQuality(p, log10_p, len(ours), len(theirs))


def quality_metrics(ratios: Sequence[float], retrained: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """Forget quality against a retrained model's rows, by the names of its metrics; nan where one side has no finite ratio."""
    theirs = [number(row["log_truth_ratio"]) for row in retrained]
    if not any(map(math.isfinite, ratios)) or not any(map(math.isfinite, theirs)):
        return {"forget_quality": math.nan, "log10_forget_quality": math.nan, "forget_quality_n": 0.0}
    quality = forget_quality(ratios, theirs)
    return {"forget_quality": quality.p, "log10_forget_quality": quality.log10_p, "forget_quality_n": float(quality.n)}


def model_utility(values: Sequence[float]) -> float:
    """TOFU's model utility: harmonic mean of nine numbers in [0, 1]; arXiv:2401.06121, section 2.2.2.

    They are probability, ROUGE-L recall and the truth ratio's utility score, each on retain set, real authors and world facts.
    One 0 gives 0.

    Raises:
        ValueError: there are not nine, or one is outside of [0, 1]; nothing takes a missing one's place.
    """
    from scipy.stats import hmean

    if len(values) != 9 or not all(0 <= value <= 1 for value in values):
        raise ValueError(f"Model utility is of nine numbers in [0, 1], got {list(values)}.")
    return float(hmean(values)) if all(values) else 0.0


def _exp(value: float) -> float:
    """Overflows to infinity, where `math.exp` raises."""
    return math.exp(value) if value < 709 or math.isnan(value) else math.inf


def _log_sum_exp(values: Sequence[float]) -> float:
    most = max(values)
    return most if math.isinf(most) else most + math.log(sum(math.exp(value - most) for value in values))
