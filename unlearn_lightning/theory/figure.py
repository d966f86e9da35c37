"""Pictures: the theorem with bound, t0 and t* marked, and the distances under every other unlearner."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from unlearn_lightning.records.statistics import log_estimate
from unlearn_lightning.report.print_figures import PATH_COLOURS, STYLE
from unlearn_lightning.theory.findings import PathPair, Theorem
from unlearn_lightning.theory.survival import Survival

COLOURS = (6, 0, 2, 5, 3)
"""Ascent alone in grey, then four of the palette."""


def save_theorem(found: Theorem, folder: Path) -> list[Path]:
    """Writes theorem.svg and theorem.png (200 dpi) of the first two orders; returns the files."""
    with _style():
        figure, (left, right) = _grid(1, 2, (6.9, 3.2), width_ratios=(3, 2))
        _one_draw(left, found)
        _all_draws(right, found)
        return _save(figure, folder / "theorem")


def save_survival(rows: Sequence[Survival], orders: Sequence[str], folder: Path) -> list[Path]:
    """Writes extensions.svg and extensions.png: a panel for each group, and one for distances to the retrained model."""
    groups = list(dict.fromkeys(row.group for row in rows))
    # The same draws in all groups but the one with many retain rows: the strongest of each beside ascent alone.
    alone = rows[0]
    last = {group: [row for row in rows if row.group == group][-1] for group in groups if "retain" not in group or group == groups[0]}
    with _style():
        figure, panels = _grid(2, 3, (6.9, 4.8))
        for panel, group in zip(panels, groups, strict=False):
            for index, row in enumerate(row for row in rows if row.group == group):
                _band(panel, row.distance, row.unlearner, COLOURS[index])
            panel.set_title(group, loc="left")
        for index, row in enumerate([alone, *last.values()]):
            _band(panels[len(groups)], row.to_retrained.max(1), row.unlearner, COLOURS[index])
        panels[len(groups)].set_title("further path to retrained", loc="left")
        for number, panel in enumerate(panels):
            panel.set_yscale("log")
            panel.legend(fontsize=6, loc="best", handlelength=1.2)
            panel.set_xlabel("unlearning step" if number >= 3 else "")
            panel.set_ylabel(f"RE distance {' – '.join(orders[:2])}" if number in (0, 3) else "")
        return _save(figure, folder / "extensions")


def _band(axes: Any, values: Any, name: str, colour: int) -> None:
    """Returns the geometric mean over seeds of (T + 1, B) by step, with its 95% interval."""
    mean, low, high = zip(*(log_estimate(row) for row in values.tolist()), strict=True)
    steps = range(len(mean))
    axes.fill_between(steps, low, high, color=PATH_COLOURS[colour], alpha=0.15, linewidth=0)
    axes.plot(steps, mean, color=PATH_COLOURS[colour], linewidth=1.3, label=name)


def _style() -> Any:
    import matplotlib as mpl

    return mpl.rc_context(STYLE)


def _grid(rows: int, columns: int, size: tuple[float, float], **settings: Any) -> tuple[Any, Any]:
    from matplotlib.figure import Figure

    figure = Figure(figsize=size, layout="constrained")
    return figure, figure.subplots(rows, columns, squeeze=False, **settings).ravel()


def _save(figure: Any, path: Path) -> list[Path]:
    path.parent.mkdir(parents=True, exist_ok=True)
    files = [path.with_suffix(kind) for kind in (".svg", ".png")]
    for file in files:
        figure.savefig(file, dpi=200, metadata={"Date": None} if file.suffix == ".svg" else {"Software": None})
    return files


def _one_draw(axes: Any, found: Theorem) -> None:
    pair, steps = found.pairs[0], np.arange(found.steps + 1)
    t0, t_star = float(pair.bound.t0[0]), float(pair.t_star[0])
    axes.plot(steps, pair.distance[:, 0], color="black", linewidth=1.6, label=f"between {pair.name}")
    for order, colour in zip(pair.orders, (PATH_COLOURS[0], PATH_COLOURS[3]), strict=True):
        axes.plot(
            steps, found.to_retrained[order][:, 0], color=colour, linewidth=1.1, label=f"{order} to retrained {found.setup.retrained_order}"
        )
    held = steps >= t0
    bound = np.exp(pair.bound.log_distance(steps[:, None].astype(float)))[:, 0]
    axes.plot(steps[~held], bound[~held], color=PATH_COLOURS[5], linewidth=0.8, linestyle=":")
    axes.plot(steps[held], bound[held], color=PATH_COLOURS[5], linewidth=1.3, linestyle="--", label="lower bound")
    axes.axhline(found.tolerance, color="#888888", linewidth=0.7)
    axes.set_yscale("log")
    axes.annotate("tolerance", (found.steps, found.tolerance), ha="right", va="bottom", fontsize=7, color="#666666")
    # t0 and t* may be one step; their names then stand on either side of the line.
    for place, name, side in ((t0, "$t_0$", "right"), (t_star, "$t^*$", "left")):
        axes.axvline(place, color="#888888", linewidth=0.7, linestyle="--" if name == "$t_0$" else "-")
        offset = (-3, -2) if side == "right" else (3, -2)
        axes.annotate(name, (place, 1), xycoords=("data", "axes fraction"), xytext=offset, textcoords="offset points", ha=side, va="top")
    axes.set_title(f"seed {found.seeds[0]}", loc="left")
    axes.set_xlabel("unlearning step")
    axes.set_ylabel("RE distance")
    axes.legend(loc="upper left", bbox_to_anchor=(0.0, 0.98), fontsize=7)


def _all_draws(axes: Any, found: Theorem) -> None:
    pair = found.pairs[0]
    ratio = _ratios(pair)
    for seed in range(ratio.shape[1]):
        start = int(pair.bound.t0[seed])
        after = ratio[start:, seed]
        axes.plot(np.arange(len(after)), after, color=PATH_COLOURS[0], linewidth=0.7, alpha=0.6)
    axes.axhline(1, color=PATH_COLOURS[5], linewidth=1.3, linestyle="--")
    axes.annotate("the bound", (1, 1), xycoords=("axes fraction", "data"), ha="right", va="bottom", fontsize=7, color=PATH_COLOURS[5])
    axes.set_yscale("log")
    axes.set_ylim(bottom=0.7)
    axes.set_title(f"{ratio.shape[1]} seeds", loc="left")
    axes.set_xlabel("steps after $t_0$")
    axes.set_ylabel("distance / bound")


def _ratios(pair: PathPair) -> Any:
    return np.exp(np.log(pair.distance) - pair.log_bound())
