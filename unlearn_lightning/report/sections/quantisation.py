"""What comes back when an unlearned model's backbone is quantised: the share of each metric's change that is undone."""

import math
from collections.abc import Iterable

from unlearn_lightning.records.measured import groups
from unlearn_lightning.records.recovery import recoveries
from unlearn_lightning.records.statistics import estimate
from unlearn_lightning.report.blocks import Block, Table
from unlearn_lightning.report.columns import Change, Column, Interval, Paths, Text
from unlearn_lightning.report.section import Section


class Quantisation(Section):
    """A table with a row for each objective, path and metric that was measured on the quantised result."""

    place = 62
    heading = "Does quantising bring it back?"
    caption = (
        "Share recovered: (quantised - unlearned) / (before - unlearned), 0 where quantising the unlearned model's backbone brings nothing "
        "back and 1 where it undoes unlearning; of any metric, whatever its direction. Seeds in which unlearning changed nothing have none."
    )

    def blocks(self) -> Iterable[Block]:
        members = groups(self.study, "unlearn")
        paths = any(group.path for group in members)
        columns: list[Column] = [Text("run", rank=0, heads=True), *([Paths(heads=True)] if paths else []), Text("weights", rank=1)]
        columns += [Text("metric", rank=0), Change("before → unlearned", "before", after="unlearned", rank=1)]
        table = Table(
            "quantisation",
            [*columns, Interval("quantised", rank=1), Interval("share recovered", "share_recovered", rank=0)],
            on_terminal=True,
        )
        for group in members:
            found: dict[tuple[str, str], list[tuple[float, float, float, float]]] = {}
            for run in group.runs:
                for one in recoveries(run.folder):
                    found.setdefault((one.kind, one.metric), []).append((one.before, one.unlearned, one.quantised, one.share))
            for (kind, metric), values in found.items():
                before, unlearned, quantised, share = (
                    estimate([v for v in column if math.isfinite(v)]) for column in zip(*values, strict=True)
                )
                named = [group.name, *([group.path] if paths else [])]
                table.add(*named, kind, metric, (before, unlearned), quantised, share)
        yield table

    def problems(self) -> Iterable[str]:
        for group in groups(self.study, "unlearn"):
            for run in group.runs:
                if same := [f"{one.metric} ({one.kind})" for one in recoveries(run.folder) if one.before == one.unlearned]:
                    yield f"No share recovered of {run.name}: unlearning did not change {', '.join(same)}"
