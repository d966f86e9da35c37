"""Figures of curves by step: a panel per objective with a line per path, means over seeds.

metric_panels(study, "forget", "forget/label_margin")[0].lines[0].y
"""

from collections.abc import Callable, Iterable

from unlearn_lightning.report.chart import Line, Panel, averaged
from unlearn_lightning.report.study_data import Study, TrainingPath


def metric_panels(study: Study, probe: str, metric: str) -> list[Panel]:
    """One metric of a probe, named as records do, against the unlearning step of the study's finished unlearning runs."""
    return panels(study, lambda objective, path: metric_line(study, probe, metric, objective, path))


def metric_line(study: Study, probe: str, metric: str, objective: str, path: TrainingPath) -> Line:
    """One path's mean over seeds with its 95% interval, in the path's colour."""
    return averaged(path.label, (path.index,), known(run.metric(probe, metric) for run in study.unlearned(objective, path)))


def panels(study: Study, line: Callable[[str, TrainingPath], Line]) -> list[Panel]:
    """A panel per objective with a line per path; lines without a point are left out."""
    return [Panel(objective, [one for path in study.paths if (one := line(objective, path)).x]) for objective in study.objectives]


def known(curves: Iterable[dict[int, float]]) -> list[dict[int, float]]:
    """The curves that have a point."""
    return [curve for curve in curves if curve]
