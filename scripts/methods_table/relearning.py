"""The table of relearning in docs/methods.md, of docs/data/demo_methods.csv alone: a row per objective, over paths and seeds."""

import math
from collections.abc import Sequence
from statistics import fmean

from scipy.stats import binomtest

from scripts.methods_table.rows import NOT_BACK, ROBUSTNESS, STEPS
from scripts.study_results.measured import Row
from scripts.study_results.table_file import mean_text
from unlearn_lightning.records.relearning import Ratio, Steps, mean_ratio, robustness_ratio
from unlearn_lightning.records.study_data import OBJECTIVE_NAMES
from unlearn_lightning.report.sections.dependence import spread

SIGNS = {"": "", "at least": "≥ ", "at most": "≤ ", "unknown": ""}
Model = tuple[int, str]
"""Seed and path of an unlearned model."""


def relearning(rows: Sequence[Row]) -> list[str]:
    """The table with the sentence above it; nothing where no model was relearned."""
    names = [name for name in OBJECTIVE_NAMES if _steps(rows, name)]
    if not names:
        return []
    never = {(seed, path): steps for name in names for (seed, path), (steps, _) in _steps(rows, name).items() if steps}
    counts = [float(steps.count) for steps in never.values()] or [math.nan]
    gone = sum(steps.censored for steps in never.values())
    also = f", of which {gone} are not back by the last step" if gone else ""
    seeds = sorted({seed for name in names for seed, _ in _steps(rows, name)})
    head = (
        f"**Steps to relearn** (seeds: {', '.join(map(str, seeds))}; of an objective those in which every path was relearned). "
        f"The retrained model takes {mean_text([fmean(counts)])} steps to the paths' levels ({min(counts):g} to {max(counts):g} "
        f"over {len(never)} pairs of a seed and a path{also})."
    )
    titles = ["objective", "steps", "their spread over paths", "p=4 back first, alone", "shares the first place", "not back", "ratio", "R"]
    lines = [head, "", f"| {' | '.join(titles)} |", "| --- |" + " ---: |" * (len(titles) - 1)]
    lines += [f"| {OBJECTIVE_NAMES[name]} | {' | '.join(_cells(rows, name))} |" for name in names]
    return [*lines, ""]


def _steps(rows: Sequence[Row], name: str) -> dict[Model, tuple[Steps | None, Steps]]:
    """Steps of the retrained and of the unlearned model, by seed and path, of the seeds that have every path."""
    paths = {row.path for row in rows if row.objective and row.quantity == "label"}
    counts, gone = (
        {(r.seed, r.path): (r.before, r.after) for r in rows if (r.objective, r.quantity) == (name, of)} for of in (STEPS, NOT_BACK)
    )
    found = {}
    for model, (never, own) in counts.items():
        if any((model[0], path) not in counts for path in paths):
            continue
        retrained = None if math.isnan(never) else Steps(int(never), bool(gone[model][0]))
        found[model] = retrained, Steps(int(own), bool(gone[model][1]))
    return found


def _cells(rows: Sequence[Row], name: str) -> list[str]:
    steps = _steps(rows, name)
    by_seed = [{path: own for (of, path), (_, own) in steps.items() if of == seed} for seed in sorted({seed for seed, _ in steps})]
    counts = [[float(own.count) for own in paths.values()] for paths in by_seed]
    ratios = [mean_ratio(_ratio(pair) for (of, _), pair in steps.items() if of == seed) for seed in sorted({seed for seed, _ in steps})]
    # A seed's mean over its paths is one value; where one of them is a bound, so is the mean of all.
    ratio, bound = mean_ratio(Ratio(mean.mean, of) for mean, of in ratios)
    robust = [
        fmean(row.after for row in rows if (row.seed, row.objective, row.quantity) == (seed, name, ROBUSTNESS))
        for seed in sorted({seed for seed, _ in steps})
    ]
    censored = [own.censored for _, own in steps.values()]
    # Where neither model is back within the steps, nothing is known of their ratio.
    unknown = sum(_ratio(pair).bound == "unknown" for pair in steps.values())
    said = "–" if math.isnan(ratio.mean) else SIGNS[bound] + ratio.text(2)
    return [
        ("≥ " if any(censored) else "") + mean_text([fmean(one) for one in counts], 1),
        mean_text([spread(one) for one in counts], 1),
        *_first(by_seed),
        f"{sum(censored)} of {len(censored)}",
        f"{said}, {unknown} left out" if unknown else said,
        mean_text(robust),
    ]


def _ratio(pair: tuple[Steps | None, Steps]) -> Ratio:
    never, own = pair
    return robustness_ratio(own, never) if never else Ratio(math.nan)


def _first(by_seed: Sequence[dict[str, Steps]]) -> tuple[str, str]:
    """In how many seeds p=4 is back after fewer steps than any other path, with Wilson's 95% interval, and in how many it shares that."""
    hits = shares = 0
    for paths in by_seed:
        places = {path: math.inf if own.censored else own.count for path, own in paths.items()}
        least = min(places.values())
        first = [path for path, place in places.items() if place == least]
        hits += first == ["p=4"]
        shares += "p=4" in first and len(first) > 1
    low, high = binomtest(hits, len(by_seed)).proportion_ci(method="wilson")
    return f"{hits} of {len(by_seed)} ({low:.0%} to {high:.0%})", str(shares)
