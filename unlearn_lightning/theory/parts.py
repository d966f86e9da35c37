"""What `unlearn theory` shows: each part as a table, and its numbers in full."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from unlearn_lightning.records.statistics import Estimate, estimate
from unlearn_lightning.report.blocks import Table
from unlearn_lightning.report.columns import Text
from unlearn_lightning.theory.certificates import audit, gaussian_delta, share_beyond
from unlearn_lightning.theory.findings import Theorem
from unlearn_lightning.theory.linear import Array, distance
from unlearn_lightning.theory.removal import newton_removal
from unlearn_lightning.theory.survival import Survival

Record = dict[str, Any]


@dataclass
class Part:
    """Holds one part of the output; `records` are the rows behind the table, unrounded, for CSV and JSON."""

    key: str
    heading: str
    caption: str
    table: Table
    records: list[Record]


def _table(header: Sequence[str], shown: Sequence[int] = (), first_number: int = 1) -> Table:
    """A table of texts.

    Args:
        header: the columns' titles.
        shown: the columns that a terminal keeps longest, below a heading per first cell where that is not among them; empty for all.
        first_number: the column from which cells are numbers.
    """
    shown = shown or range(len(header))
    columns = []
    for index, title in enumerate(header):
        # What names a row and its conclusion, which is last, are kept in any case.
        rank = 0 if index in (shown[0], shown[-1]) else 1 if index in shown else 2
        # Two words one below the other keep a column narrow.
        short, heads = title.replace(" ", "\n", 1), index == 0 and 0 not in shown
        columns.append(Text(title, right=index >= first_number, rank=rank, short=short, heads=heads))
    return Table("", columns)


def theorem_part(found: Theorem) -> Part:
    """Makes one row per pair of orders: the bound's constants, and whether measured distances obey it."""
    header = ["pair", "ρ*", "σ_U", "‖PΔ₀‖", "C₀", "t₀", "t*", "d, start", "d, end", "least d / bound", "corollary"]
    table, records = _table(header, shown=(0, 1, 5, 6, 7, 8, 9, 10)), []
    for pair in found.pairs:
        bound, margin = pair.bound, pair.margin()
        hits, claims = found.corollary_holds(pair)
        constants = [_text(values) for values in (bound.rho, bound.sigma, bound.inside, bound.outside)]
        moments = [_range(bound.t0), _range(pair.t_star)]
        least = "–" if np.isnan(margin).all() else f"{np.nanmin(margin):.3g}"
        ends = [_geometric(pair.distance[step]) for step in (0, -1)]
        table.add(pair.name, *constants, *moments, *ends, least, f"{hits} of {claims}")
        columns = {
            "rho": bound.rho,
            "sigma": bound.sigma,
            "inside": bound.inside,
            "outside": bound.outside,
            "t0": bound.t0,
            "t_star": pair.t_star,
            "distance_start": pair.distance[0],
            "distance_end": pair.distance[-1],
            "least_distance_over_bound": margin,
        }
        records += _by_seed({"pair": "-".join(pair.orders)}, found.seeds, columns)
    caption = (
        f"{len(found.seeds)} seeds, {found.steps} steps, tolerance {found.tolerance:g}. ± is the half width of a 95% interval over seeds; "
        "t₀ and t* as median [least, most]; distances d as geometric means. Least d / bound is over all seeds and steps from t₀ on; "
        "corollary counts the (step, seed) from t* on at which one of the two is beyond the tolerance. Recursion and closed form "
        f"differ by at most {found.disagreement:.1g} of the weights' norm."
    )
    return Part("theorem", "Distance between paths, and the bound below it", caption, table, records)


def removal_part(found: Theorem) -> Part:
    """Makes one row per order: what ascent and a Newton step do to the distance from the retrained model."""
    header = ["order", "trained", "ascent, best", "at step", "ascent, last", "Newton step", "Newton after ascent", "certified radius"]
    table, records = _table([*header, "half the rows"]), []
    retained, mu = found.setup.retrained_order, found.setup.mu
    for order, start in found.starts.items():
        curve, ascended = found.to_retrained[order], found.ascent.closed_form(start, found.steps)
        one, after = (newton_removal(found.problem, retained, theta, mu) for theta in (start, ascended))
        half = newton_removal(found.problem, retained, start, mu, share=0.5)
        columns = {
            "trained": curve[0],
            "ascent_best": curve.min(0),
            "ascent_best_step": curve.argmin(0).astype(float),
            "ascent_last": curve[-1],
            "newton": distance(found.problem, one.theta, found.retrained),
            "newton_after_ascent": distance(found.problem, after.theta, found.retrained),
            "certified_radius": np.maximum(one.radius, after.radius),
            "newton_half_the_rows": distance(found.problem, half.theta, found.retrained),
        }
        formats = (_geometric, _geometric, _range, _geometric, _largest, _largest, _largest, _geometric)
        table.add(order, *(show(values) for show, values in zip(formats, columns.values(), strict=True)))
        records += _by_seed({"order": order}, found.seeds, columns)
    caption = (
        f"RE distance to the retrained model {retained}, geometric means over {len(found.seeds)} seeds; for Newton steps (one per retained "
        "stage, which re-solves it) and their certified distance in weights the largest over seeds. Ascent's best step is chosen per seed "
        f"with the retrained model in hand, which nobody has; its last step is {found.steps}. Half the rows: the Newton step reads "
        "the first half of every retained stage only."
    )
    return Part("removal", "Who reaches the retrained model", caption, table, records)


def survival_part(rows: Sequence[Survival], orders: Sequence[str]) -> Part:
    """Makes one row per unlearner: how fast the gap between two orders grows under it, and how that ends."""
    header = ["group", "unlearner", "predicted rate", "second quarter", "last quarter", "d, start", "d, end", "to retrained, start"]
    table, records = _table([*header, "to retrained, end", "divergence"], (1, 2, 4, 5, 6, 9), 2), []
    for row in rows:
        worst, rates = (
            row.to_retrained.max(1),
            {"predicted_rate": row.predicted, "second_quarter_rate": row.middle, "last_quarter_rate": row.late},
        )
        ends = {"start": row.distance[0], "end": row.distance[-1], "to_retrained_start": worst[0], "to_retrained_end": worst[-1]}
        texts = [rate.text(4, signed=True) for rate in rates.values()] + [_geometric(values) for values in ends.values()]
        table.add(row.group, row.unlearner, *texts, row.fate)
        records.append(
            {"group": row.group, "unlearner": row.unlearner}
            | {name: number for what, rate in rates.items() for name, number in _numbers(what, rate).items()}
            | {name: math.exp(np.log(values).mean()) for name, values in ends.items()}
            | {"divergence": row.fate, "seeds": row.distance.shape[1]}
        )
    caption = (
        f"Growth rates of log d per step between {orders[0]} and {orders[1]}, mean ± half width of the 95% confidence interval over "
        f"{rows[0].distance.shape[1]} seeds, in quarters of {len(rows[0].distance) - 1} steps; predicted: the gap's largest eigenvalue. "
        "d: geometric means; to retrained: the further of the two paths."
    )
    heading = "Where exponential divergence survives, and where it stops"
    return Part("extensions", heading, caption, table, records)


@dataclass(frozen=True)
class Levels:
    """What certificates are about, and how they are estimated.

    `delta` belongs to both notions; `epsilon` and the noise of released weights belong to the second. All certificates hold together with
    probability 1 - alpha. `releases` weights are drawn from each model in `audited` of the draws.
    """

    delta: float = 0.1
    epsilon: float = 1.0
    release_noise: float = 0.5
    releases: int = 2000
    audited: int = 20
    alpha: float = 0.05

    def __post_init__(self) -> None:
        for name in ("delta", "alpha"):
            if not 0 < getattr(self, name) < 1:
                raise ValueError(f"{name} must lie between 0 and 1, got {getattr(self, name)}.")
        if self.epsilon < 0 or not self.release_noise > 0:
            raise ValueError(f"Need epsilon >= 0 and release_noise > 0, got {self.epsilon} and {self.release_noise}.")
        if self.releases < 2:
            raise ValueError(f"releases must be at least 2, one to choose a test and one to apply it; got {self.releases}.")


def certificates_part(found: Theorem, levels: Levels) -> Part:
    """Makes one row per order and kind of unlearning: what the draws prove against (tolerance, delta) and (epsilon, delta)."""
    t_star = int(max(pair.t_star.max() for pair in found.pairs))
    models: list[tuple[str, str, Array]] = []
    for order, start in found.starts.items():
        best = found.to_retrained[order].argmin(0)
        at_best = np.stack([found.ascent.closed_form(start, int(step))[index] for index, step in enumerate(best)])
        models += [
            (order, "trained", start),
            (order, "ascent, best step", at_best),
            (order, f"ascent, step {t_star}", found.ascent.closed_form(start, t_star)),
            (order, "Newton step", newton_removal(found.problem, found.setup.retrained_order, start, found.setup.mu).theta),
        ]
    audited = min(levels.audited, len(found.seeds))
    each = levels.alpha / (len(models) * (1 + audited))
    header = ["order", "model", f"d > {found.tolerance:g}", "probability at least", "violated", "exact δ", "certified δ"]
    table, records = _table([*header, f"above {levels.delta:g}"], (1, 2, 3, 4, 5, 6, 7), 2), []
    for order, model, theta in models:
        beyond = share_beyond(distance(found.problem, theta, found.retrained), found.tolerance, each)
        audits = _audits(theta[:audited], found, levels, each)
        exact, certified = np.median(audits, axis=0)
        proved = int((audits[:, 1] > levels.delta).sum())
        violated = "yes" if beyond.delta > levels.delta else "not shown"
        numbers = [f"{beyond.delta:.3f}", violated, f"{exact:.3f}", f"{max(certified, 0):.3f}", f"{proved} of {audited}"]
        table.add(order, model, f"{beyond.hits} of {beyond.draws}", *numbers)
        measured = {"hits": beyond.hits, "draws": beyond.draws, "certified_probability": beyond.delta, "exact_delta_median": exact}
        proofs = {"certified_delta_median": certified, "certified_above_delta": proved, "audited": audited, "alpha_each": each}
        records.append({"order": order, "model": model, "tolerance": found.tolerance, **measured, **proofs, "delta": levels.delta})
    caption = (
        f"Step {t_star} is the last t* of all draws. "
        f"Left: over {len(found.seeds)} independent draws, P(RE distance > {found.tolerance:g}) is at least the given number; "
        f"violated where that exceeds δ = {levels.delta:g}. Right: the δ at ε = {levels.epsilon:g} between released weights, unlearned "
        f"and retrained, with normal noise of standard deviation {levels.release_noise:g}: medians over {audited} draws, certified from "
        f"{levels.releases} releases of each, and in how many draws that exceeds {levels.delta:g}. All bounds hold together with "
        f"probability {1 - levels.alpha:g} (Clopper-Pearson, Bonferroni)."
    )
    return Part("certificates", "What random draws prove", caption, table, records)


def _audits(theta: Array, found: Theorem, levels: Levels, alpha: float) -> Array:
    """Returns (draws, 2) the exact delta of each draw's releases, and the certified one."""
    rows = []
    for one, other, seed in zip(theta, found.retrained, found.seeds, strict=False):
        rng = np.random.default_rng([seed, 3])
        noise = levels.release_noise * rng.standard_normal((2, levels.releases, len(one)))
        exact = gaussian_delta(float(np.linalg.norm(one - other)), levels.release_noise, levels.epsilon)
        rows.append([exact, audit(one + noise[0], other + noise[1], levels.epsilon, alpha)])
    return np.array(rows)


def _by_seed(about: Record, seeds: Sequence[int], columns: Mapping[str, Array]) -> list[Record]:
    return [about | {"seed": seed} | {name: values[index] for name, values in columns.items()} for index, seed in enumerate(seeds)]


def _numbers(name: str, value: Estimate) -> Record:
    return {name: value.mean, f"{name}_ci95": value.half_width}


def _text(values: Array) -> str:
    return estimate(map(float, values)).text(3)


def _range(values: Array) -> str:
    return f"{np.median(values):.0f} [{values.min():.0f}, {values.max():.0f}]"


def _geometric(values: Array) -> str:
    return f"{math.exp(np.log(values).mean()):.3g}" if np.all(values > 0) else f"{values.mean():.3g}"


def _largest(values: Array) -> str:
    return f"{values.max():.1e}"
