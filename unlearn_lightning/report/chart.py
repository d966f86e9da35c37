"""What a figure is, before any drawing library: lines in panels on common scales, plain numbers throughout."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import ClassVar

from unlearn_lightning.records.statistics import Curve, estimate, log_estimate
from unlearn_lightning.report.blocks import Block

MOST_PANELS, MOST_LINES, MOST_COLUMNS = 24, 64, 6
"""More panels than these, or lines in one of them, are not drawn; a grid of more columns becomes rows of three."""


@dataclass
class Line:
    """One line. `paths` are the indices of the path(s) it belongs to, which the reader can hide.

    `hues` are its colours, as indices of the palette: those of its paths unless set, one or two for a pair. A `level` is what the other
    lines are compared with: it is dashed and has no marks.
    """

    name: str
    paths: tuple[int, ...]
    x: list[float]
    y: list[float]
    low: list[float] = field(default_factory=list)
    high: list[float] = field(default_factory=list)
    hues: tuple[int, ...] = ()
    level: bool = False

    def __post_init__(self) -> None:
        self.hues = self.hues or self.paths


@dataclass
class Panel:
    """One plot of a chart: its title and its lines."""

    title: str
    lines: list[Line]

    @property
    def x(self) -> list[float]:
        """The places on the x axis of all lines."""
        return [place for line in self.lines for place in line.x]


@dataclass
class Chart(Block):
    """A figure: panels side by side on one y scale. `heading` and `caption` are empty where the section's own say it.

    With `columns` the panels form a grid, row by row, and each row has its own scale.
    """

    key: str
    heading: str
    caption: str
    x_title: str
    y_title: str
    panels: list[Panel]
    log_y: bool = False
    x_ticks: list[str] = field(default_factory=list)
    columns: int = 0
    own_scales: bool = False
    """Whether each panel has a y scale of its own, as where panels show different quantities."""
    note: str = ""
    template: ClassVar[str] = "chart.html"

    def __bool__(self) -> bool:
        """Whether there is a line in it."""
        return any(panel.lines for panel in self.panels)

    def readable(self) -> "Chart":
        """The chart, or its first panels and lines where there are too many to read, with a note of what is left out."""
        lines = max(len(panel.lines) for panel in self.panels)
        kept = [Panel(panel.title, panel.lines[:MOST_LINES]) for panel in self.panels[:MOST_PANELS]]
        counts = (("panels", MOST_PANELS, len(self.panels)), ("lines", MOST_LINES, lines))
        cut = [f"{most} of {all_of:,} {what}" for what, most, all_of in counts if all_of > most]
        columns = self.columns if self.columns <= MOST_COLUMNS else 0
        return replace(self, panels=kept, columns=columns, note=f"Drawn: the first {' and '.join(cut)}." if cut else "")

    @property
    def legend(self) -> dict[str, int]:
        """The names of lines that the page's own legend, which is of paths, does not tell, with their colours."""
        return {line.name: line.hues[0] for panel in self.panels for line in panel.lines if not line.paths}

    @property
    def y_ranges(self) -> list[tuple[float, float]]:
        """Each panel's limits on the y axis."""
        together = 1 if self.own_scales else self.columns or len(self.panels)
        rows = [self.panels[start : start + together] for start in range(0, len(self.panels), together)]
        return [limits for row in rows for limits in [self._y_range(row)] * len(row)]

    @property
    def y_ticks(self) -> list[tuple[list[float], list[str]]]:
        """Each panel's ticks on a log axis with their texts; empty on a linear one, which drawing libraries do well."""
        ticks = [log_ticks(*limits) for limits in self.y_ranges] if self.log_y else []
        return [(found, [f"{tick:,.12g}" if 0.001 <= tick < 1e6 else f"{tick:.0e}" for tick in found]) for found in ticks]

    def _y_range(self, panels: Sequence[Panel]) -> tuple[float, float]:
        """Limits for some panels: every mean, and as much of the bands as half of the means' range allows on either side."""
        lines = [line for panel in panels for line in panel.lines]
        means = [self._scaled(y) for line in lines for y in line.y if math.isfinite(y) and (y > 0 or not self.log_y)]
        if not means:
            return 0.0, 1.0
        low, high = min(means), max(means)
        span = high - low or abs(high) or 1.0
        bands = [self._scaled(y) for line in lines for y in line.low + line.high if math.isfinite(y) and (y > 0 or not self.log_y)]
        floor, ceiling = max(min([low, *bands]), low - span / 2), min(max([high, *bands]), high + span / 2)
        limits = floor - 0.06 * span, ceiling + 0.06 * span
        return (10 ** limits[0], 10 ** limits[1]) if self.log_y else limits

    def _scaled(self, value: float) -> float:
        return math.log10(value) if self.log_y else value


def averaged(name: str, paths: tuple[int, ...], curves: Sequence[Curve], log: bool = False, hues: tuple[int, ...] = ()) -> Line:
    """Mean over seeds at every measured step with its 95% interval (geometric on a log axis)."""
    line = Line(name, paths, [], [], hues=hues)
    for step in sorted({step for curve in curves for step in curve}):
        values = [curve[step] for curve in curves if math.isfinite(curve.get(step, math.nan))]
        over = estimate(values)
        mean, low, high = log_estimate(values) if log else (over.mean, over.low, over.high)
        if not math.isnan(mean):
            line.x.append(step)
            line.y.append(mean)
            line.low.append(low)
            line.high.append(high)
    if all(math.isnan(value) for value in line.low):
        line.low, line.high = [], []
    return line


def log_ticks(low: float, high: float) -> list[float]:
    """About four to seven round ticks of a log axis: whole decades, or the first digits that are enough where there are few."""
    decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)

    def ticks(digits: Sequence[float]) -> list[float]:
        return [digit * 10.0**decade for decade in decades for digit in digits if low <= digit * 10.0**decade <= high]

    found = ticks((1,))
    found = found[:: math.ceil(len(found) / 7) or 1]
    for digits in ((1, 3), (1, 2, 5), (1, 2, 3, 5, 7), range(1, 10), [digit / 10 for digit in range(10, 100)]):
        if len(found) >= 4:
            break
        finer = ticks(digits)
        found = finer if len(finer) <= 7 or not found else found
    return found
