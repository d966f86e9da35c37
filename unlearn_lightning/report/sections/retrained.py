"""Distance of the predictions to those of the model that never saw the forget set."""

import math
from collections.abc import Iterable

from unlearn_lightning.records.measured import has_paths
from unlearn_lightning.records.study_data import Study, TrainingPath
from unlearn_lightning.report.blocks import Block
from unlearn_lightning.report.chart import Chart, Line, averaged
from unlearn_lightning.report.curves import known, panels
from unlearn_lightning.report.section import Section, listed


class Retrained(Section):
    """A figure, and a sentence on who came closer."""

    place = 60
    heading = "Distance to the retrained model"
    caption = (
        "Squared distance of the predictions to those of the model that never saw the forget set, in nats², on a log axis: unlearning "
        "should bring every line down, whatever its path."
    )

    def blocks(self) -> Iterable[Block]:

        def line(objective: str, path: TrainingPath) -> Line:
            curves = known(self.material.distances.to_retrained(run) for run in self.study.unlearned(objective, path))
            return averaged(path.label, (path.index,), curves, log=True)

        drawn = panels(self.study, line)
        return [Chart("retrained", "", "", "unlearning step", "squared distance (nats²)", drawn, log_y=True)]

    def sentences(self) -> Iterable[str]:
        said: dict[str, list[str]] = {}  # what happened -> under which objectives
        for objective in self.study.objectives:
            moves: dict[bool, list[str]] = {True: [], False: []}
            for row in self.material.rows:
                before, after = row.values["distance_before"].mean, row.values["distance_after"].mean
                if row.objective == objective and not math.isnan(before + after):
                    moves[after < before].append(row.path.label)
            measured = len(moves[True]) + len(moves[False])
            named = {way: "every path" if len(labels) == measured > 1 else listed(labels) for way, labels in moves.items() if labels}
            parts = [f"{named[way]} {where}" for way, where in ((True, "closer"), (False, "further away")) if way in named]
            if parts:
                said.setdefault(" and ".join(parts), []).append(objective)
        moved = "; ".join(f"{listed(objectives)} took {what}" for what, objectives in said.items())
        return [f"Relative to the model that never saw the forget set, {moved}."] if said else []

    def problems(self) -> Iterable[str]:
        other = self.material.against
        theirs = [f"In {other.study.name}: {problem}" for problem in _without_retrained(other.study)] if other else []
        return [*self.material.distances.problems, *_without_retrained(self.study), *theirs]


def _without_retrained(study: Study) -> list[str]:
    """Seeds and paths without a retrained model, where runs measured what could be compared with one."""
    # A run or a grid of a model of one's own has no stages before it, and so none to leave out.
    if not has_paths(study) or not any(run.records("divergence") for run in study.finished("unlearn")):
        return []
    unknown: dict[str, list[str]] = {}  # seeds without the retrained model -> on which paths
    for path in study.paths:
        models = {seed: study.retrained(seed, path.stages) for seed in study.seeds}
        if lacking := [seed for seed, model in models.items() if model is None or not model.records("divergence")]:
            unknown.setdefault(", ".join(map(str, lacking)), []).append(path.label)
    where = {seeds: "" if len(labels) == len(study.paths) else f" on {', '.join(labels)}" for seeds, labels in unknown.items()}
    why = "no finished run without the forget stage has divergence records"
    return [f"No distance to the retrained model for seed {seeds}{on}: {why}" for seeds, on in where.items()]
