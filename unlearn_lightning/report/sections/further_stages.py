"""How long recency lasts: the path that met the forget stage last, and the same path with 1, 2, ... further stages trained after it.

A study has such a series when some paths begin with all stages of its last path (`p4+1` is p4 and one more); its other paths are the
rivals. For each number of further stages, in how many seeds did the path forget less than every rival?

further = further_stages(study, "label_drop")
further[2].share.interval       # 95% Wilson interval of the share of seeds
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass

from unlearn_lightning.records.statistics import Curve, Estimate, Share, estimate
from unlearn_lightning.records.study_data import Study, TrainingPath
from unlearn_lightning.report.blocks import Block, Table
from unlearn_lightning.report.chart import Chart, Line, Panel
from unlearn_lightning.report.columns import Counted, Interval, Number, Text
from unlearn_lightning.report.section import Material, Section
from unlearn_lightning.report.sections.recency import MEASURED

CAPTION = (
    "The last path with so many further stages after the forget stage: its label drop (nats), and the seeds in which it fell less than "
    "every path that met the forget stage earlier, with 95% Wilson intervals; measures and controls are those of the recency table."
)
DRAWN = ("label_drop", "forget_score", "paraphrase_drop", "margin_drop")


@dataclass
class Further:
    """One path of the series under one objective. `stages`: how many further ones; `drop`: of the measure, over the counted seeds."""

    objective: str
    path: TrainingPath
    stages: int
    share: Share
    drop: Estimate


def series(study: Study) -> tuple[list[TrainingPath], list[TrainingPath]]:
    """The last path and those that go on from it, by length, and the rivals; both empty where there is no such series."""
    if len(study.last_paths) != 1:
        return [], []
    (last,) = study.last_paths
    members = [path for path in study.paths if path.stages[: len(last.stages)] == last.stages]
    rivals = [path for path in study.paths if path not in members]
    return (sorted(members, key=lambda path: len(path.stages)), rivals) if len(members) > 1 and rivals else ([], [])


def further_stages(study: Study, measure: str) -> list[Further]:
    """Objective by objective, by number of further stages.

    Args:
        study: finished runs are counted; a seed in which the path or a rival was not measured counts as left out.
        measure: a key of `recency.MEASURED`.
    """
    members, _ = series(study)
    found = []
    for objective in study.objectives:
        for path in members:
            fell = further_by_seed(study, objective, path, measure)
            share = Share(sum(slowest for _, slowest in fell.values()), len(fell), len(study.seeds) - len(fell))
            stages = len(path.stages) - len(members[0].stages)
            found.append(Further(objective, path, stages, share, estimate(drop for drop, _ in fell.values())))
    return found


def further_by_seed(study: Study, objective: str, path: TrainingPath, measure: str) -> dict[int, tuple[float, bool]]:
    """Seed -> how far a path of the series fell, and whether it fell less than every rival; seeds that cannot be compared are left out."""
    rivals = series(study)[1]
    curves = {one.index: _curves(study, objective, one, measure) for one in (path, *rivals)}
    found = {}
    for seed in study.seeds:
        fell = MEASURED[measure].drops({index: of.get(seed, {}) for index, of in curves.items()})
        if not any(map(math.isnan, fell.values())):
            found[seed] = fell[path.index], fell[path.index] < min(fell[rival.index] for rival in rivals)
    return found


def _curves(study: Study, objective: str, path: TrainingPath, measure: str) -> dict[int, Curve]:
    return {run.seed: run.metric("forget", MEASURED[measure].metric) for run in study.unlearned(objective, path)}


def further_table(study: Study) -> Table:
    """One row per objective and number of further stages; empty without a series."""
    measured = [Counted(measured.title, name) for name, measured in MEASURED.items()]
    columns = [Text("objective"), Number("further stages", digits=0), Interval("label drop", "fall", digits=2), *measured]
    table = Table("further_stages", columns, caption=CAPTION)
    for row in zip(*(further_stages(study, measure) for measure in MEASURED), strict=True):
        if any(one.share.n for one in row):
            table.add(row[0].objective, row[0].stages, row[0].drop, *(one.share for one in row))
    return table


def further_chart(study: Study) -> Chart:
    """The share of seeds by number of further stages: a row of panels per objective, a column per measure."""
    panels, ticks = [], [str(len(path.stages) - len(series(study)[0][0].stages)) for path in series(study)[0]]
    for objective in study.objectives:
        for measure in DRAWN:
            counted = [one for one in further_stages(study, measure) if one.objective == objective and one.share.n]
            places = [ticks.index(str(one.stages)) for one in counted]
            low, high = ([one.share.interval[side] for one in counted] for side in (0, 1))
            shares = [one.share.hits / one.share.n for one in counted]
            colour = counted[0].path.index if counted else 0
            line = Line("share of seeds", (colour,), [float(place) for place in places], shares, low, high)
            panels.append(Panel(f"{objective}: {MEASURED[measure].title}", [line] if counted else []))
    return Chart(
        "further_stages", "", "", "further stages", "share of seeds", panels, x_ticks=ticks,
        columns=len(DRAWN),
    )  # fmt: skip


class FurtherStages(Section):
    """A figure of the shares, and the table behind it."""

    place = 45
    heading = "How long does recency last?"

    def __init__(self, material: Material):
        super().__init__(material)
        chance = 1 / (1 + len(series(self.study)[1]))
        self.caption = (
            "Share of seeds in which the last path, with so many further stages after the forget stage, fell less than every path that met "
            "it earlier: a row for each objective, a column for each measure. Bands are 95% Wilson intervals; where the path is like any "
            f"other, chance gives {chance:.0%}."
        )

    def blocks(self) -> Iterable[Block]:
        return [further_chart(self.study), further_table(self.study)] if series(self.study)[0] else []
