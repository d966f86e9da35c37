"""Metrics, one a file. Each measures its own probe set before, during and after training; see `Probe` to add one.

`Throughput` measures speed.
"""

from callbacks.forget_likelihood import ForgetLikelihood
from callbacks.gsm8k_accuracy import GSM8KAccuracy
from callbacks.path_divergence import PathDivergence
from callbacks.probe import Probe, Quantity
from callbacks.response_behaviour import ResponseBehaviour
from callbacks.response_families import ResponseFamilies
from callbacks.retain_likelihood import RetainLikelihood
from callbacks.throughput import Throughput

__all__ = [
    "ForgetLikelihood", "GSM8KAccuracy", "PathDivergence", "Probe", "Quantity", "ResponseBehaviour", "ResponseFamilies", "RetainLikelihood",
    "Throughput",
]  # fmt: skip
