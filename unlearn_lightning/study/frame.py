"""One picture of a study in the terminal: what runs, how far it is, and what was measured so far. From files; the queue's view is added.

Console().print(frame(read_states(...), ProbeMetrics(), title="runs/demo", height=40))
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rich.console import Group, RenderableType
from rich.progress_bar import ProgressBar
from rich.text import Text

from unlearn_lightning.cli.terminal import Column, TerminalTable
from unlearn_lightning.records import number, read_json
from unlearn_lightning.records.texts import probe_place
from unlearn_lightning.study.remaining import remaining_seconds, remaining_text
from unlearn_lightning.study.state import COLOURS, STATES, RunState, counts

# The states in the order in which they are shown where not every run fits.
URGENCY = ("running", "failed", "stopped", "queued", "finished", "ready", "waiting")
COLUMNS = 4
NARROW = 110
"""Below so many characters there is no room for bars, nor for what was measured first beside what was measured last."""


@dataclass
class ProbeMetrics:
    """Reads what probes have measured from the run folders, and reads each record only once."""

    _read: dict[Path, dict[str, float]] = field(default_factory=dict)

    def of(self, folder: Path) -> dict[str, tuple[float, float]]:
        """The first metric of each probe at the first and the last step that were measured, by its name such as forget/label_log_lik."""
        found = {}
        for probe in sorted((folder / "records").glob("*"), key=lambda place: probe_place(place.name)):
            steps = sorted(probe.glob("[0-9]*.json"))
            if steps and (last := self._metrics(steps[-1])):
                name = next(iter(last))
                found[name] = self._metrics(steps[0]).get(name, last[name]), last[name]
        return found

    def _metrics(self, file: Path) -> dict[str, float]:
        if file not in self._read:
            try:
                self._read[file] = {name: number(value) for name, value in read_json(file)["metrics"].items()}
            except (ValueError, KeyError, AttributeError):
                # The report names a record that is damaged; the picture goes on without it.
                self._read[file] = {}
        return self._read[file]


def frame(
    runs: Sequence[RunState], measured: ProbeMetrics, title: str, note: str = "", height: int | None = None, width: int = 160
) -> Group:
    """Draws one picture of the study.

    Args:
        runs: of the study, parents before children.
        measured: remembers what was read for the picture before.
        title: above everything.
        note: below everything; empty for none.
        height: lines there are; null for all runs however many.
        width: characters of a line.
    """
    narrow = width < NARROW
    room = None if height is None else height - 5 - 2 * narrow - bool(note)
    shown = fitting(runs, room)
    facts = {run.key: _facts(run) for run in runs if run.state in ("finished", "running")}
    values = {run.key: measured.of(run.folder) for run in shown}
    known = [name for name, _ in Counter(name for found in values.values() for name in found).most_common()]
    names, further = (sorted(some, key=lambda name: probe_place(name.partition("/")[0])) for some in (known[:COLUMNS], known[COLUMNS:]))
    if further and room is not None:
        shown = fitting(runs, room - 1)
    speed = sum(facts[run.key].get("tokens_per_second", 0) for run in runs if run.state == "running")
    took = {key: float(found["seconds"]) for key, found in facts.items() if isinstance(found.get("seconds"), int | float)}
    left = remaining_text(remaining_seconds(runs, took))
    heading = Text.assemble((title, "bold"), f"  {counts(runs)}", f"  {speed:,.0f} tokens/s" if speed else "", f"  {left}" if left else "")
    columns = [Column("run", 0), Column("state", 0, left=True), Column("steps", 0, left=True)]
    columns += [] if narrow else [Column("", 4, left=True)]
    columns.append(Column("tokens/s", 2))
    for place, name in enumerate(names):
        # The probe above its quantity, and that in two lines where four columns are to fit a terminal of 80.
        heading_lines = name.replace("/", "/\n")
        columns.append(Column(heading_lines.replace("_log_lik", "\nlog_lik") if narrow else heading_lines, 1 if place == 0 else 3))
    queued = any(run.task for run in runs)
    columns += [Column("queue", 2, left=True, style="dim")] if queued else []
    rows = [_cells(run, facts.get(run.key, {}), values[run.key], names, narrow)[: len(columns)] for run in shown]
    # A run of two lines would make the picture higher than the terminal.
    table = TerminalTable(columns, rows, stacked=False)
    rest = [run for run in runs if run not in shown]
    parts: list[RenderableType] = [heading, table]
    if rest:
        parts.append(Text(f"not shown: {', '.join(f'{n} {s}' for s in STATES if (n := sum(r.state == s for r in rest)))}", style="dim"))
    if further:
        parts.append(Text(f"measured, too: {', '.join(further)}", style="dim", no_wrap=True, overflow="ellipsis"))
    if note:
        parts.append(Text(note, style="yellow"))
    return Group(*parts)


def fitting(runs: Sequence[RunState], room: int | None) -> list[RunState]:
    """The runs that there is room for, in their order: those that run first, then those that need somebody, then the latest finished."""
    if room is None or len(runs) <= room:
        return list(runs)
    places = {run.key: place for place, run in enumerate(runs)}
    # Of the finished runs the latest are shown, and of all others the first.
    by_urgency = sorted(runs, key=lambda r: (URGENCY.index(r.state), places[r.key] * (-1 if r.state == "finished" else 1)))
    kept = {run.key for run in by_urgency[: max(1, room - 1)]}
    return [run for run in runs if run.key in kept]


def _facts(run: RunState) -> dict[str, Any]:
    """How fast it is: from run.json when it is finished, from progress.json while it runs."""
    try:
        return read_json(run.folder / ("run.json" if run.state == "finished" else "progress.json"))
    except FileNotFoundError:
        return {}


def _cells(run: RunState, facts: dict[str, Any], values: dict[str, tuple[float, float]], names: Sequence[str], narrow: bool) -> list[Any]:
    known = run.step is not None and run.steps
    steps = f"{run.step}/{run.steps}" if known else ""
    bar = ProgressBar(total=run.steps, completed=run.step or 0, width=10) if known and run.state == "running" else ""
    speed = facts.get("tokens_per_second")
    cells = [run.name, Text(run.state, COLOURS[run.state]), steps, *([] if narrow else [bar]), f"{speed:,.0f}" if speed else ""]
    cells += [(_number(values[name][1]) if narrow else _change(*values[name])) if name in values else "" for name in names]
    said = run.why if run.state == "failed" else run.task.said.removeprefix("job ") if run.task and run.state != "finished" else ""
    return [*cells, said]


def _change(first: float, last: float) -> str:
    return _number(last) if first == last else f"{_number(first)} → {_number(last)}"


def _number(value: float) -> str:
    return "–" if math.isnan(value) else f"{value:.3g}".replace("-", "−")
