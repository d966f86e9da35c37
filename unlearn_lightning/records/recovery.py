"""How much of what was unlearned comes back when the backbone is quantised (Zhang et al. 2024, arXiv:2410.16454).

for one in recoveries(Path("runs/forgotten")):
    one.metric, one.share          # "forget/probability", 0.83: of what unlearning took, 83% is there again
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from unlearn_lightning.records import Quantity, metric_key, number, read_json, record_paths

QUANTISATIONS = ("nf4", "int8")


def share_recovered(before: float, unlearned: float, quantised: float) -> float:
    """(s_q - s_u) / (s_0 - s_u) for any score s: 0 where quantising brings nothing back, 1 where it undoes unlearning.

    Args:
        before: s_0, of the model that unlearning began with.
        unlearned: s_u, of its result.
        quantised: s_q, of the result with its backbone quantised.

    Returns:
        The share, below 0 where quantising takes more away; nan where unlearning changed nothing, as there is nothing to come back.
    """
    return math.nan if before == unlearned else (quantised - unlearned) / (before - unlearned)


@dataclass(frozen=True)
class Recovery:
    """One metric of one run under one quantisation.

    Attributes:
        kind: nf4 or int8.
        probe: that measured it.
        metric: its full name, without the quantisation.
        quantity: what its number means.
        before: at the run's start.
        unlearned: at its end.
        quantised: at its end, with the backbone quantised.
    """

    kind: str
    probe: str
    metric: str
    quantity: Quantity
    before: float
    unlearned: float
    quantised: float

    @property
    def share(self) -> float:
        """The share recovered; nan where it is undefined."""
        return share_recovered(self.before, self.unlearned, self.quantised)


def quantised_name(probe: str, kind: str) -> str:
    """The name of a probe's records of a quantised model."""
    return f"{probe}.{kind}"


def original_name(probe: str) -> str:
    """The name of the probe whose measurement was repeated; its own name for any other."""
    name, _, kind = probe.rpartition(".")
    return name if name and kind in QUANTISATIONS else probe


def recoveries(folder: Path) -> Iterator[Recovery]:
    """What a run measured before, after, and after with a quantised backbone, by quantisation and metric.

    Args:
        folder: of the run.
    """
    for kind in QUANTISATIONS:
        for place in sorted((folder / "records").glob(f"*.{kind}")):
            probe = original_name(place.name)
            first, last, again = (
                _metrics(paths) for paths in (_steps(folder, probe)[:1], _steps(folder, probe)[-1:], _steps(folder, place.name))
            )
            record = read_json(_steps(folder, probe)[-1]) if last else {}
            for name, quantised in again.items():
                metric = metric_key(probe, name.partition("/")[2])
                if metric in first and metric in last:
                    yield Recovery(kind, probe, metric, Quantity.of(record, metric), first[metric], last[metric], quantised)


def _steps(folder: Path, probe: str) -> list[Path]:
    return record_paths(folder, probe)


def _metrics(paths: list[Path]) -> dict[str, float]:
    found: Mapping[str, Any] = read_json(paths[-1])["metrics"] if paths else {}
    return {name: number(value) for name, value in found.items()}
