"""The charts as SVG and PNG for a paper: full text width, one legend, colours that a colour-blind reader tells apart."""

import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

from unlearn_lightning.report.chart import Chart, Line

if TYPE_CHECKING:
    from matplotlib.axes import Axes

PATH_COLOURS = ("#0072b2", "#56b4e9", "#e69f00", "#d55e00", "#cc79a7", "#009e73", "#555555", "#b8a900")
"""Okabe and Ito's palette, from early (cold) to late (warm) forget stages; the page's CSS has the same."""

MOST_LEGEND_ROWS = 5
"""A legend of more rows would take the room of the figure, and is left out."""

LEFT, BETWEEN, TITLE_LINE = 0.62, 0.1, 0.14
"""Inches: left of the panels, between two of them, and of a title's further line."""

MARKERS = "osD^vPXh"
STYLE: Any = {
    "font.family": "sans-serif", "font.size": 8, "axes.titlesize": 8, "axes.titleweight": "bold", "axes.labelsize": 8, "axes.titley": 1.0,
    "axes.spines.top": False, "axes.spines.right": False, "axes.linewidth": 0.6, "xtick.labelsize": 7, "ytick.labelsize": 7,
    "xtick.major.width": 0.6, "ytick.major.width": 0.6, "axes.grid": True, "grid.color": "#e4e4e4", "grid.linewidth": 0.5,
    "axes.axisbelow": True, "legend.frameon": False, "legend.fontsize": 8, "svg.fonttype": "none", "svg.hashsalt": "unlearn",
}  # fmt: skip


def save_figures(charts: list[Chart], folder: Path) -> list[Path]:
    """Write `<folder>/<key>.svg` and `.png` (200 dpi) for each chart; returns the files."""
    import matplotlib as mpl

    folder.mkdir(parents=True, exist_ok=True)
    files = []
    with mpl.rc_context(STYLE):
        for chart in charts:
            figure = draw(chart)
            for kind in ("svg", "png"):
                path = folder / f"{chart.key}.{kind}"
                figure.savefig(path, dpi=200, metadata={"Date": None} if kind == "svg" else {"Software": None})
                files.append(path)
    return files


def draw(chart: Chart) -> Any:
    """A matplotlib `Figure` of the chart: in its own grid, or at most three panels in a row."""
    from matplotlib.figure import Figure

    columns = chart.columns or min(3, len(chart.panels))
    rows = math.ceil(len(chart.panels) / columns)
    width = {1: 3.4, 2: 5.2}.get(columns, 6.9)
    titles = [_wrapped(panel.title, (width - LEFT) / columns - BETWEEN) for panel in chart.panels]
    further = TITLE_LINE * max(title.count("\n") for title in titles)
    height = (2.0 + further) * rows + 0.55
    figure = Figure(figsize=(width, height))
    grid = figure.subplots(rows, columns, sharey=False if chart.own_scales else "row", squeeze=False)
    for axes, panel, title, limits in zip(grid.flat, chart.panels, titles, chart.y_ranges, strict=False):
        axes.set_ylim(*limits)
        for line in panel.lines:
            _draw_line(axes, line)
        axes.set_title(title, loc="left")
        axes.set_xlabel(chart.x_title)
        if chart.x_ticks:
            axes.set_xticks(range(len(chart.x_ticks)), chart.x_ticks)
            axes.margins(x=0.2)
    for axes in grid.flat[len(chart.panels) :]:
        axes.set_visible(False)
    for row, axes in enumerate(grid[:, 0]):
        axes.set_ylabel(chart.y_title)
        if chart.log_y:
            axes.set_yscale("log")
            axes.set_yticks(*chart.y_ticks[row * columns])
            axes.set_yticks([], minor=True)
    handles = {
        line.name: handle
        for axes, panel in zip(grid.flat, chart.panels, strict=False)
        for handle, line in zip(axes.lines, panel.lines, strict=True)
    }
    per_row = max(1, int(width / (0.5 + 0.055 * max(map(len, handles), default=0))))
    legend_rows = math.ceil(len(handles) / per_row)
    note = chart.note
    if legend_rows > MOST_LEGEND_ROWS:
        note, legend_rows, handles = f"{note} No legend: {len(handles)} lines.".strip(), 0, {}
    figure.legend(
        handles.values(), handles.keys(), loc="lower center", ncols=min(len(handles), per_row) or 1, columnspacing=1.2, handlelength=1.8
    )
    if note:
        figure.text(0.5, 0.05 / height, note, ha="center", size=7)
    bottom = (0.47 + 0.17 * (legend_rows + bool(note))) / height
    top = 1 - (0.22 + further) / height
    figure.subplots_adjust(left=LEFT / width, right=1 - 0.08 / width, top=top, bottom=bottom, wspace=0.1, hspace=0.45 + further / 1.4)
    return figure


def _wrapped(title: str, inches: float) -> str:
    """The title with line breaks between its words, so that no line is wider than its panel unless one word is."""
    from matplotlib.font_manager import FontProperties
    from matplotlib.textpath import TextPath

    font = FontProperties(family=STYLE["font.family"], weight=STYLE["axes.titleweight"], size=STYLE["axes.titlesize"])
    lines = [""]
    for word in title.split(" "):
        longer = f"{lines[-1]} {word}".strip()
        if lines[-1] and TextPath((0, 0), longer, prop=font).get_extents().width / 72 > inches:
            lines.append(word)
        else:
            lines[-1] = longer
    return "\n".join(lines)


def _draw_line(axes: "Axes", line: Line) -> None:
    first, last = line.hues[0], line.hues[-1]
    colour = PATH_COLOURS[first % 8]
    if line.low:
        axes.fill_between(line.x, line.low, line.high, color=colour, alpha=0.15, linewidth=0)
    axes.plot(
        line.x, line.y, color=colour, linewidth=1.3, linestyle="--" if line.level else "-",
        marker="" if line.level else MARKERS[last % 8], markersize=3.2, markeredgewidth=0.6,
        markeredgecolor="white" if first == last else colour, markerfacecolor=PATH_COLOURS[last % 8],
    )  # fmt: skip
