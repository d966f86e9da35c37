"""Metrics, one a file. Each measures its own probe set before, during and after training; see `Probe` to add one.

`Throughput` measures speed. A folder `callbacks/` of yours, where you work or on PYTHONPATH, joins this package: its `mine.py` is
`callbacks.mine`. What of it would take the place of a module here is not read, and a line says so.
"""

from pathlib import Path
from pkgutil import extend_path

from lightning.pytorch.utilities.rank_zero import rank_zero_info

from callbacks.forget_likelihood import ForgetLikelihood
from callbacks.gsm8k_accuracy import GSM8KAccuracy
from callbacks.knowledge_memorisation import KnowledgeMemorisation
from callbacks.membership_inference import MembershipInference
from callbacks.memorisation import Memorisation
from callbacks.path_divergence import PathDivergence
from callbacks.probe import Probe, Quantity
from callbacks.response_behaviour import ResponseBehaviour
from callbacks.response_families import ResponseFamilies
from callbacks.response_likelihood import ResponseLikelihood
from callbacks.response_match import ResponseMatch
from callbacks.retain_likelihood import RetainLikelihood
from callbacks.retrained_distribution import RetrainedDistribution
from callbacks.throughput import Throughput
from callbacks.truth_ratio import TruthRatio
from callbacks.verbatim_memorisation import VerbatimMemorisation

__all__ = [
    "ForgetLikelihood", "GSM8KAccuracy", "KnowledgeMemorisation", "MembershipInference", "Memorisation", "PathDivergence", "Probe",
    "Quantity", "ResponseBehaviour", "ResponseFamilies", "ResponseLikelihood", "ResponseMatch", "RetainLikelihood",
    "RetrainedDistribution", "Throughput", "TruthRatio", "VerbatimMemorisation",
]  # fmt: skip


def not_read(ours: Path, theirs: Path) -> list[str]:
    """The files of another folder `callbacks` that this package's own take the place of; an empty `__init__.py` says nothing."""
    return sorted(file.name for file in theirs.glob("*.py") if (ours / file.name).is_file() and file.read_text(encoding="utf-8").strip())


_HERE = Path(__file__).parent
__path__ = extend_path(__path__, __name__)
for _other in [Path(place) for place in __path__ if not _HERE.samefile(place)]:
    if _names := not_read(_HERE, _other):
        rank_zero_info(f"{_other}: {', '.join(_names)} is not read, as this package has a file of that name. Rename it, or the folder.")
