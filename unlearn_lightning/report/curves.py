"""Figures of curves by step: a panel per objective with a line per path, means over seeds.

metric_panels(study, "forget", "forget/label_margin")[0].lines[0].y
"""

from collections.abc import Callable, Iterable

from unlearn_lightning.records.study_data import Study, TrainingPath
from unlearn_lightning.report.chart import Line, Panel, averaged
from unlearn_lightning.report.outcomes import last

RETRAINED = "retrained model"


def metric_panels(study: Study, probe: str, metric: str) -> list[Panel]:
    """One metric of a probe, named as records do, against the unlearning step of the study's finished unlearning runs."""
    drawn = panels(study, lambda objective, path: metric_line(study, probe, metric, objective, path))
    return with_level(study, drawn, probe, metric)


def with_level(study: Study, drawn: list[Panel], probe: str, metric: str) -> list[Panel]:
    """The panels with the retrained models' last value as a level across each, the mean over seeds, where it was measured."""
    models = {run.key: run for seed in study.seeds for path in study.paths if (run := study.retrained(seed, path.stages))}
    values = [last(curve) for run in models.values() if (curve := run.metric(probe, metric))]
    for panel in drawn:
        if panel.lines and values:
            level = averaged(RETRAINED, (), [{int(place): value for place in (min(panel.x), max(panel.x))} for value in values], hues=(6,))
            level.level = True
            panel.lines.append(level)
    return drawn


def metric_line(study: Study, probe: str, metric: str, objective: str, path: TrainingPath) -> Line:
    """One path's mean over seeds with its 95% interval, in the path's colour."""
    return averaged(path.label, (path.index,), known(run.metric(probe, metric) for run in study.unlearned(objective, path)))


def panels(study: Study, line: Callable[[str, TrainingPath], Line]) -> list[Panel]:
    """A panel per objective with a line per path; lines without a point are left out."""
    return [Panel(objective, [one for path in study.paths if (one := line(objective, path)).x]) for objective in study.objectives]


def known(curves: Iterable[dict[int, float]]) -> list[dict[int, float]]:
    """The curves that have a point."""
    return [curve for curve in curves if curve]
