"""Every metric of every probe before and after, and by step.

All of it comes from what the records say of themselves, so that a new probe needs nothing here.
"""

from collections.abc import Iterable, Sequence
from functools import cached_property

from unlearn_lightning.records import Quantity
from unlearn_lightning.records.measured import Group, groups, has_paths, metrics, probes, since_start
from unlearn_lightning.records.statistics import number_text
from unlearn_lightning.report.blocks import Block, Table
from unlearn_lightning.report.chart import Chart, Line, Panel, averaged
from unlearn_lightning.report.columns import Change, Column, Interval, Paths, Text
from unlearn_lightning.report.depths import depths
from unlearn_lightning.report.outcomes import label_is_measured
from unlearn_lightning.report.section import Section, Verdict

MOST_COLUMNS, MOST_LINES = 6, 8
OPEN = 24
"""Rows of a table that the page shows at once; longer ones are folded."""
UNLEARNED = ("unlearn", "measured")


class Probes(Section):
    """A table and a figure for each probe: of what was unlearned, and a folded table of the stages before."""

    place = 60
    heading = "What the probes measured"
    caption = (
        "Every metric that was recorded, at the first and at the last measured step of a run and, below, by step; over seeds, with 95% "
        "intervals. A metric that was measured once is the last."
    )

    def blocks(self) -> Iterable[Block]:
        """Nothing where no probe has records."""
        members, stages = groups(self.study, *UNLEARNED), groups(self.study, "stage")
        for probe in probes(run for group in (*members, *stages) for run in group.runs):
            yield self._table(probe, members)
            yield from self._charts(probe, members)
            yield self._table(probe, stages, "_in_stages", f"The probe {probe} in the stages before")

    def verdict(self) -> Verdict | None:
        """What changed, in one sentence, where no other section has a verdict."""
        members = groups(self.study, *UNLEARNED) or groups(self.study, "stage")
        if not members or len(self.study.paths) > 1:
            return None
        named = probes(run for group in members for run in group.runs)
        if len(members) > 1:
            return Verdict(f"{len(members)} runs or groups of seeds measured {', '.join(named)}.", weight=-0.5) if named else None
        # What forget_answers says stands in its table, where forget is there as well.
        leading = [name for name in named if "_" not in name or name.partition("_")[0] not in named]
        parts = [_sentence(members[0], probe, metric, one) for probe in leading for metric, one in [*metrics(members, probe).items()][:1]]
        return Verdict(f"{members[0].name}: {'; '.join(parts)}.", weight=-0.5) if parts else None

    @cached_property
    def _on_terminal(self) -> bool:
        """Whether the terminal has no table by path: there is one path, or neither a label nor the three responses were measured."""
        return len(self.study.paths) < 2 or not (label_is_measured(self.study) or depths(self.study))

    def _table(self, probe: str, members: Sequence[Group], suffix: str = "", heading: str = "") -> Table:
        """A row per group and metric."""
        paths = any(group.path for group in members)
        columns: list[Column] = [Text("run", rank=0, heads=True), *([Paths(heads=True)] if paths else []), Text("metric", rank=0)]
        columns += [Change("before → after", "before", rank=0), Interval("change", rank=1, signed=True), Text("unit", rank=1)]
        columns += [Text("name", rank=None, in_full=True), Text("keeps or gains", "better", rank=None, in_full=True)]
        found = metrics(members, probe)
        shown = self._on_terminal and (not suffix or len(self.study.paths) < 2)
        table = Table(f"probe_{probe}{suffix}", columns, heading=heading or f"The probe {probe}", on_terminal=shown)
        for group in members:
            for metric, quantity in found.items():
                before, after, change = group.change(probe, metric)
                if after.n:
                    named = [group.name, *([group.path] if paths else []), quantity.title]
                    table.add(*named, (before, after), change, quantity.unit, metric, quantity.better)
        count = len(table.rows)
        table.folded = f"{count} rows" if heading or count > OPEN else ""
        return table

    def _charts(self, probe: str, members: Sequence[Group]) -> Iterable[Block]:
        """A row of panels per metric, a panel per objective with a line per path; or one panel, a line per run, if paths do not vary."""
        by_step = [group for group in members if any(len(run.records(probe)) > 1 for run in group.runs)]
        several = has_paths(self.study) and len(self.study.paths) > 1
        names = list(dict.fromkeys(group.name for group in by_step))
        kept = names[: MOST_COLUMNS if several else MOST_LINES]
        elsewhere = self.material.drawn if several else set()
        drawn = {name: one for name, one in metrics(members, probe).items() if not since_start(probe, name) and name not in elsewhere}
        panels = []
        for metric, quantity in drawn.items():
            title = f"{quantity.title} ({quantity.unit})" if quantity.unit else quantity.title
            for names_of_panel in ([name] for name in kept) if several else [kept]:
                shown = [group for group in by_step if group.name in names_of_panel]
                lines = [_line(group, probe, metric, order, several) for order, group in enumerate(shown)]
                heading = f"{names_of_panel[0]}: {title}" if several else title
                panels.append(Panel(heading, [line for line in lines if line.x]))
        left_out = (
            f" Of {len(names)} objectives and variants the first {len(kept)} are drawn; the table has all." if names[len(kept) :] else ""
        )
        caption = f"Each metric of the probe {probe} by optimizer step.{left_out}"
        columns = len(kept) if several else min(3, len(panels))
        yield Chart(f"probe_{probe}", f"The probe {probe} by step", caption, "step", "", panels, columns=columns, own_scales=not several)


def _line(group: Group, probe: str, metric: str, order: int, of_path: bool) -> Line:
    """A group's mean over seeds, in its path's colour or else in one of its own."""
    if of_path and group.path:
        return averaged(group.path.label, (group.path.index,), group.curves(probe, metric))
    return averaged(group.label, (), group.curves(probe, metric), hues=(order % 8,))


def _sentence(group: Group, probe: str, metric: str, quantity: Quantity) -> str:
    before, after, _ = group.change(probe, metric)
    values = " → ".join(number_text(one.mean) for one in (before, after) if one.n)
    return f"{probe}: {quantity.title} {values} {quantity.unit}".strip()
