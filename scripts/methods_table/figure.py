"""The table of methods as a picture: objectives by paths, how far the label fell and how near the retrained model is."""

import math
from collections.abc import Sequence
from statistics import fmean
from typing import Any

from scripts.study_results.measured import Row
from unlearn_lightning.records.study_data import OBJECTIVE_NAMES


def heat_map(rows: Sequence[Row]) -> Any:
    """A matplotlib figure of two grids: label drop, and log10 of the distance after over that before, means over seeds."""
    from matplotlib.figure import Figure

    names = [name for name in OBJECTIVE_NAMES if any(row.objective == name for row in rows)]
    paths = sorted({row.path for row in rows if row.quantity == "label" and row.objective})
    figure = Figure(figsize=(7.2, 0.6 + 0.32 * len(names)), layout="constrained")
    axes = figure.subplots(1, 2, sharey=True)
    ratio = "distance to the retrained model,\nafter / before (log10)"
    grids = (
        ("label drop (nats)", "label", lambda row: row.before - row.after, "viridis"),
        (
            ratio,
            "to retrained",
            lambda row: math.log10(row.after / row.before),
            "RdBu_r",
        ),
    )
    for place, (title, quantity, value, colours) in zip(axes, grids, strict=True):
        numbers = [[_mean(rows, name, path, quantity, value) for path in paths] for name in names]
        limits = {"vmin": -1.5, "vmax": 1.5} if quantity == "to retrained" else {}
        place.imshow(numbers, aspect="auto", cmap=colours, **limits)
        place.set_title(title, fontsize=9)
        place.set_xticks(range(len(paths)), paths, fontsize=8)
        place.set_yticks(range(len(names)), [OBJECTIVE_NAMES[name] for name in names], fontsize=8)
        for i, line in enumerate(numbers):
            for j, number in enumerate(line):
                text = "–" if math.isnan(number) else f"{round(number, 1) + 0.0:.1f}".replace("-", "−")
                place.text(j, i, text, ha="center", va="center", fontsize=7, bbox={"facecolor": "white", "alpha": 0.6, "lw": 0, "pad": 1})
    return figure


def _mean(rows: Sequence[Row], objective: str, path: str, quantity: str, value: Any) -> float:
    found = [value(row) for row in rows if (row.objective, row.path, row.quantity) == (objective, path, quantity)]
    return fmean(found) if found else math.nan
