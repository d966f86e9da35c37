"""How much gradient an objective had left at each step: the weight that NPO and SimNPO give it, from the runs' metrics.csv.

A weight near 0 means that the objective has spent its gradient, and that what follows is the optimizer's momentum.
"""

import csv
import math
from collections.abc import Iterable
from functools import cached_property

from unlearn_lightning.records.measured import Group, groups, has_paths
from unlearn_lightning.records.statistics import Curve, estimate
from unlearn_lightning.records.study_data import RunRecord
from unlearn_lightning.report.blocks import Block, Table
from unlearn_lightning.report.columns import Change, Number, Paths, Text
from unlearn_lightning.report.section import Section

METRIC = "train/gradient_weight"
SPENT = 0.01
"""Below this share of its start the weight counts as spent."""


class GradientWeight(Section):
    """A table of the weight at the first and the last step; sentences where it was spent before the end."""

    place = 62
    heading = "Had the objective any gradient left?"
    caption = (
        "The factor by which NPO and SimNPO multiply their gradient, a mean over a step's examples, at the first and the last logged step; "
        f"means over seeds with 95% intervals. Spent: the step from which the weight is below {SPENT:.0%} of its start."
    )

    def blocks(self) -> Iterable[Block]:
        if not self._weights:
            return
        paths = has_paths(self.study)
        columns = [
            Text("objective", heads=True),
            *([Paths()] if paths else []),
            Change("weight", "weight_first", after="weight_last", digits=2),
        ]
        table = Table("gradient_weight", [*columns, Number("spent at step", "spent_at_step", digits=0)])
        for group, curves in self._weights:
            ends = [estimate([curve[end(curve)] for curve in curves]) for end in (min, max)]
            cells = [group.name, *([group.path] if paths else []), tuple(ends)]
            spent = [one for curve in curves if (one := _spent(curve)) is not None]
            table.add(*cells, min(spent, default=None))
        yield table

    def sentences(self) -> Iterable[str]:
        spent = [
            (group, found) for group, curves in self._weights if (found := [one for curve in curves if (one := _spent(curve)) is not None])
        ]
        if spent:
            named = ", ".join(f"{group.label} from step {min(found)}" for group, found in spent)
            yield f"The gradient's weight was below {SPENT:.0%} of its start under {named}: what follows there is the optimizer's momentum."

    @cached_property
    def _weights(self) -> list[tuple[Group, list[Curve]]]:
        found = [(group, [curve for run in group.runs if (curve := _curve(run))]) for group in groups(self.study, "unlearn")]
        return [(group, curves) for group, curves in found if curves]


def _curve(run: RunRecord) -> Curve:
    """The logged weights by step; empty where the objective has none or the file cannot be read."""
    path = run.folder / "metrics.csv"
    if not path.is_file():
        return {}
    try:
        with path.open(encoding="utf-8", newline="") as file:
            rows = csv.DictReader(file)
            if METRIC not in (rows.fieldnames or ()):
                return {}
            found = {int(row["step"]): float(row[METRIC]) for row in rows if row[METRIC]}
    except (OSError, ValueError, TypeError, KeyError, csv.Error):
        return {}
    return {step: value for step, value in found.items() if math.isfinite(value)}


def _spent(curve: Curve) -> int | None:
    """The step from which on the weight stays below a share of its start; None where it never does."""
    bound, spent = SPENT * curve[min(curve)], None
    for step in sorted(curve):
        spent = None if curve[step] >= bound else step if spent is None else spent
    return spent
