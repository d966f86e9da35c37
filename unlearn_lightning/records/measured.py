"""What probes measured, whatever they are: names, units and values of all metrics, as the records themselves say.

for group in groups(study, "unlearn"):
    group.change("length", "length/tokens")       # (Estimate before, Estimate after, Estimate of the change), over seeds
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from unlearn_lightning.records import Quantity, metric_key
from unlearn_lightning.records.statistics import Curve, Estimate, estimate
from unlearn_lightning.records.study_data import RunRecord, Study, TrainingPath
from unlearn_lightning.records.texts import probe_place


@dataclass(frozen=True)
class Group:
    """Finished runs that differ in their seed alone.

    Attributes:
        name: the objective with what varies, the stages that were trained, or the run's own name.
        path: of an unlearning run, where a path is known.
        runs: one for each seed.
    """

    name: str
    path: TrainingPath | None
    runs: tuple[RunRecord, ...]

    @property
    def label(self) -> str:
        """The name with the path's."""
        return f"{self.name}, {self.path.label}" if self.path else self.name

    def curves(self, probe: str, metric: str) -> list[Curve]:
        """The metric by step, one curve for each seed in which it was measured."""
        return [curve for run in self.runs if (curve := run.metric(probe, metric))]

    def change(self, probe: str, metric: str) -> tuple[Estimate, Estimate, Estimate]:
        """The metric at the first and the last measured step and its change, over seeds; a single measurement is the last."""
        curves = self.curves(probe, metric)
        ends = [(curve[min(curve)] if len(curve) > 1 else math.nan, curve[max(curve)]) for curve in curves]
        before, after = [first for first, _ in ends], [last for _, last in ends]
        return _known(before), _known(after), _known([last - first for first, last in ends])


def groups(study: Study, *kinds: str) -> list[Group]:
    """The finished runs of some kinds, those of one objective and path, or of the same stages, together.

    Args:
        study: the study, folder of runs or single run.
        kinds: `unlearn`, `stage`, ...; runs of other kinds are left out.
    """
    known = has_paths(study)
    found: dict[tuple[str, TrainingPath | None], list[RunRecord]] = {}
    for run in (run for kind in kinds for run in study.finished(kind)):
        unlearned = run.kind == "unlearn"
        name = run.objective if unlearned else " → ".join(run.stages) or run.name
        found.setdefault((name, study.path_of(run) if unlearned and known else None), []).append(run)
    return [Group(name, path, tuple(runs)) for (name, path), runs in found.items()]


def has_paths(study: Study) -> bool:
    """Whether the study says which stages its unlearning runs went through."""
    return any(path.stages for path in study.paths)


def probes(members: Iterable[RunRecord]) -> list[str]:
    """The names of all probes that have records in some runs."""
    found = {place.name for run in members for place in (run.folder / "records").glob("*") if place.is_dir()}
    return sorted(found, key=probe_place)


def metrics(members: Sequence[Group], probe: str) -> dict[str, Quantity]:
    """What a probe measured in some groups, by the metrics' full names, in the order of the records."""
    found: dict[str, Quantity] = {}
    for run in (run for group in members for run in group.runs):
        for record in list(run.records(probe).values())[-1:]:
            for metric in record["metrics"]:
                found.setdefault(metric, Quantity.of(record, metric))
    return found


def since_start(probe: str, metric: str) -> bool:
    """Whether a metric is by its name the change of another one since the run's start, which that one's own curve shows."""
    return metric.removeprefix(metric_key(probe, "")).endswith(("change", "drop"))


def _known(values: Sequence[float]) -> Estimate:
    return estimate([value for value in values if math.isfinite(value)])
