"""The closing table: what unlearning did to each path, one row per objective and path."""

from collections.abc import Iterable
from typing import Any

from unlearn_lightning.records.statistics import Estimate
from unlearn_lightning.report.blocks import Block, File, Table
from unlearn_lightning.report.columns import Change, Column, Flag, Interval, Number, Paths, Text
from unlearn_lightning.report.outcomes import OutcomeRow
from unlearn_lightning.report.section import Material, Section

MISSING = Estimate(float("nan"), float("nan"), 0)


class Closing(Section):
    """Table 1 of the paper for the page, and all measures for every place."""

    place = 10
    heading = "What unlearning did to each path"

    def __init__(self, material: Material):
        super().__init__(material)
        self.caption = (
            "One row per path. Forget score: decrease of the mean log-likelihood of label and paraphrases, in nats; "
            f"{self.study.retain_title}: 1 minus the absolute change of the retained answers' log-likelihood; math: change of "
            "accuracy. The lowest forget score of a column is marked."
        )

    def blocks(self) -> Iterable[Block]:
        if not any(value.n for row in self.material.rows for value in row.values.values()):
            return []
        closing = self._closing()
        return [self._by_path(), closing, File("table.csv", closing.csv())]

    def summary(self) -> dict[str, Any]:
        return {"rows": list(map(_entry, self.material.rows))}

    def _closing(self) -> Table:
        several = any(row.seeds > 1 for row in self.material.rows)
        interval = " Mean ± half width of the 95% confidence interval over seeds." if several else ""
        retention = f"{self.study.retain_title} retention"
        columns: list[Column] = [
            Paths(arrow=True), Text("objective", heads=True), Number("seeds", in_full=True),
            Interval("forget score", "forget_score", digits=2, rank=0, short="forget\nscore"),
            Interval("label drop", "label_drop", digits=2, short="label\ndrop"),
            Interval(retention, "retention", digits=2, rank=0, short=f"{self.study.retain_title}\nretention"),
            Change("math accuracy", "accuracy_before", after="accuracy_after", digits=2, rank=2, short="math acc.\nin → out"),
            Interval("its change", "accuracy_change", digits=2, signed=True, short="\nchange"),
            Change("distance to retrained", "distance_before", after="distance_after", digits=1, short="dist.² to re-\ntrained, in → out"),
            Interval("label margin before", "margin_before", digits=1, rank=3, short="margin\nbefore", intervals=False),
            Flag("", "slowest", sign="◂ lowest forget score", rank=0),
        ]  # fmt: skip
        note = f"Nats, squared nats.{interval} ◂ lowest forget score."
        title = f"Study {self.study.name}, before and after unlearning"
        table = Table("closing", columns, note=note, title=title, folded="All measures", on_terminal=True)
        for row in self.material.rows:
            value = row.values
            table.add(
                row.path, row.objective, row.seeds, value["forget_score"], value["label_drop"], value["retention"],
                (value["accuracy_before"], value["accuracy_after"]), value["accuracy_change"],
                (value["distance_before"], value["distance_after"]), value["margin_before"], row.slowest, marked=row.slowest,
            )  # fmt: skip
        return table

    def _by_path(self) -> Table:
        """Table 1 of the paper: a row per path, per objective its three scores."""
        columns: list[Column] = [Paths(arrow=True)]
        for objective in self.study.objectives:
            columns += [
                Interval("forget ↑", group=objective, digits=2), Interval(f"{self.study.retain_title} ↑", group=objective, digits=2),
                Interval("math ↑", group=objective, digits=2, signed=True),
            ]  # fmt: skip
        table = Table("by_path", columns, stacked=True, in_files=False)
        found = {(row.objective, row.path.index): row for row in self.material.rows}
        for path in self.study.paths:
            rows = [found.get((objective, path.index)) for objective in self.study.objectives]
            measures = ("forget_score", "retention", "accuracy_change")
            cells = [row.values[measure] if row else MISSING for row in rows for measure in measures]
            low = [1 + 3 * index for index, row in enumerate(rows) if row and row.slowest]
            table.add(path, *cells, low=low)
        return table


def _entry(row: OutcomeRow) -> dict[str, Any]:
    values = {measure: {"mean": value.mean, "ci95": value.half_width, "n": value.n} for measure, value in row.values.items()}
    path = {"objective": row.objective, "p": row.path.p, "label": row.path.label, "path": list(row.path.stages)}
    return {**path, "seeds": row.seeds, "slowest": row.slowest, **values}
