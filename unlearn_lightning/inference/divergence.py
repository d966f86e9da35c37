"""How far two models' predictions lie apart.

A model's prediction on a probe example is the vector of per-token log-likelihoods of the probe's response:

    squared_distance({"q1": [-1.0, -2.0]}, {"q1": [-1.0, -4.0]})   # 4.0
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from numpy.typing import NDArray


def squared_distance(one: Mapping[str, Sequence[float]], other: Mapping[str, Sequence[float]]) -> float:
    """Mean over probe examples of the squared Euclidean distance between two prediction vectors.

    Yu et al. 2025, arXiv:2510.16629, definition 2.1 (RE distance when `other` is the retrained model).

    Args:
        one: example id -> per-token log-likelihoods of one model, nats.
        other: the same of the other model, on the same examples and tokens.

    Returns:
        Nats squared.

    Raises:
        ValueError: the two were not measured on the same examples and tokens.
    """
    if one.keys() != other.keys():
        difference = sorted(one.keys() ^ other.keys())
        raise ValueError(f"Predictions of different probe examples cannot be compared; only one side has {difference[:3]}.")
    if not one:
        raise ValueError("There are no probe examples to compare.")
    total = 0.0
    for name, vector in one.items():
        if len(vector) != len(other[name]):
            raise ValueError(
                f"Probe example {name!r} has {len(vector)} response tokens on one side and {len(other[name])} on the other: "
                "the two runs used different tokenizers, chat templates or maximum lengths."
            )
        total += sum((a - b) ** 2 for a, b in zip(vector, other[name], strict=True))
    return total / len(one)


def squared_distances(one: NDArray[Any], other: NDArray[Any]) -> NDArray[Any]:
    """The same for predictions that lie in arrays: (..., examples, numbers per example) -> (...)."""
    distances: NDArray[Any] = ((one - other) ** 2).sum(-1).mean(-1)
    return distances
