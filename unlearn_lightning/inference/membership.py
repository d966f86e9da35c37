"""Membership inference: scores that tell whether a text was trained on, and what they say of a whole set.

    min_k([-0.1, -3.0, -5.0, -0.2, -0.3], 0.4)              # 4.0, from the two least likely tokens
    auc([0.1, 0.2], [0.9, 0.2])                             # 0.875: forget texts score lower, as members do

Of every score a lower value speaks for a member, in all of public code.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Mapping, Sequence
from typing import Any

from unlearn_lightning.records import number

ATTACKS = {
    "loss": "loss", "zlib": "loss over zlib's bytes of the response", "zlib_whole": "loss over zlib's bytes of the whole text",
    "min_k": "Min-K%", "min_k_pp": "Min-K%++", "gradnorm": "gradient norm", "reference": "loss minus the retrained model's",
}  # fmt: skip
"""The attacks by the names of their scores in a record, and what tables call them."""
Rows = Sequence[Mapping[str, Any]]
# From this AUC of the retrained model on, PrivLeak divides by what is hardly above 0.
PRIVLEAK_LIMIT = 0.95


def zlib_score(mean_loss: float, text: str) -> float:
    """Loss per token over the length of the compressed text, nats per byte; Carlini et al. 2021, arXiv:2012.07805.

    OpenUnlearning compresses the response, MUSE the whole text.
    """
    return mean_loss / len(zlib.compress(text.encode()))


def min_k(values: Sequence[float], k: float) -> float:
    """- mean of the floor(k n), at least one, smallest values; of log-likelihoods Min-K% (Shi et al. 2024, arXiv:2310.16789), nats.

    MUSE lacks the "at least one", so that k n < 1 gives it nan.

    Args: values: n > 0 numbers, one per token.   k: share, in (0, 1].
    """
    count = max(1, math.floor(k * len(values)))
    return -sum(sorted(values)[:count]) / count


def auc(forget: Sequence[float], holdout: Sequence[float]) -> float:
    """P(a holdout text scores higher than a forget text), ties counting half.

    1: the forget set clearly was trained on; 0.5: no difference; 0: forgotten beyond what was never seen. The target is the retrained
    model's. MUSE labels the holdout set as member and negates the scores: its AUC is 1 minus this.

    Args: forget, holdout: scores, lower for members; none is empty.   Returns: in [0, 1]; nan where a score is no number.
    """
    from scipy.stats import rankdata

    if not all(map(math.isfinite, [*forget, *holdout])):
        return math.nan
    above = rankdata([*holdout, *forget])[: len(holdout)].sum() - len(holdout) * (len(holdout) + 1) / 2
    return float(above / (len(holdout) * len(forget)))


def priv_leak(unlearned: float, retrained: float) -> float:
    """100 ((1 - AUC) - (1 - AUC_retrained)) / (1 - AUC_retrained); Shi et al. 2024, arXiv:2407.06460, section 3.

    0 is best, below 0 too little was unlearned, above 0 too much. The AUCs are of `min_k` with k = 0.4 and in the sense of `auc`.
    OpenUnlearning takes 0.5 for a retrained model that is not given.

    Returns: percent, at least -100.

    Raises:
        ValueError: the retrained model's AUC nears 1, where any difference becomes thousands of percent.
    """
    if not retrained < PRIVLEAK_LIMIT:
        raise ValueError(
            f"PrivLeak divides by 1 minus the retrained model's AUC, which is {retrained:.3f} and must be below {PRIVLEAK_LIMIT}: forget "
            "and holdout set differ in more than membership. Take a holdout set from the forget set's own distribution."
        )
    return 100 * (retrained - unlearned) / (1 - retrained)


def aucs(rows: Rows) -> dict[str, float]:
    """The AUC of every attack whose scores the rows have, by its metric's name."""
    found = {}
    for attack in ATTACKS:
        if all(attack in row for row in rows):
            forget, holdout = ([number(row[attack]) for row in rows if row["holdout"] is side] for side in (False, True))
            found[f"{attack}_auc"] = auc(forget, holdout)
    return found


def against_retrained(rows: Rows, retrained: Rows) -> tuple[dict[str, float], str]:
    """What a retrained model's rows of the same examples add: the reference attack, its AUCs, and PrivLeak, or why that is refused."""
    theirs = {f"{name}_retrained": value for name, value in aucs(retrained).items()}
    pairs = zip(rows, retrained, strict=True)
    referred = [{"holdout": row["holdout"], "reference": number(row["loss"]) - number(their["loss"])} for row, their in pairs]
    found = {**aucs(referred), **theirs}
    try:
        return {**found, "privleak": priv_leak(aucs(rows)["min_k_auc"], theirs["min_k_auc_retrained"])}, ""
    except ValueError as refused:
        return found, str(refused)
