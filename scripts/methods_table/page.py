"""The tables of docs/methods.md, of docs/data/demo_methods.csv alone: a row per objective, means over seeds with 95% intervals."""

import math
from collections.abc import Callable, Sequence
from statistics import fmean

from scipy.stats import binomtest

from scripts.methods_table.relearning import relearning
from scripts.methods_table.rows import NOISE, STEPS
from scripts.study_results.measured import Row
from scripts.study_results.table_file import geometric, mean_text
from unlearn_lightning.records.study_data import OBJECTIVE_NAMES
from unlearn_lightning.report.sections.dependence import spread
from unlearn_lightning.report.sections.rank_stability import mean_tau

Cell = Callable[["Objective"], str]


class Objective:
    """The rows of one objective, seed by seed."""

    def __init__(self, rows: Sequence[Row], name: str) -> None:
        self.name = name
        self.rows = [row for row in rows if row.objective == name]
        self.seeds = sorted({row.seed for row in self.rows})

    def by_path(self, seed: int, quantity: str, value: Callable[[Row], float]) -> dict[str, float]:
        """A quantity of a seed, path -> value; paths where it is not known are left out."""
        found = {row.path: value(row) for row in self.rows if (row.seed, row.quantity) == (seed, quantity)}
        return {path: one for path, one in found.items() if math.isfinite(one)}

    def over_seeds(self, quantity: str, value: Callable[[Row], float], of: Callable[[Sequence[float]], float]) -> list[float]:
        """A number per seed, of the values on its paths; seeds without any are left out."""
        values = [list(self.by_path(seed, quantity, value).values()) for seed in self.seeds]
        return [of(one) for one in values if one]


def fall(row: Row) -> float:
    """How far a log-likelihood fell."""
    return row.before - row.after


def rise(row: Row) -> float:
    """How far a share rose."""
    return row.after - row.before


def kept(row: Row) -> float:
    """Retention: 1 - |change|."""
    return 1 - abs(row.after - row.before)


def after(row: Row) -> float:
    """The value after unlearning."""
    return row.after


COLUMNS: dict[str, Cell] = {
    "label drop": lambda o: mean_text(o.over_seeds("label", fall, fmean)),
    "its spread over paths": lambda o: mean_text(o.over_seeds("label", fall, spread)),
    "p=4 slowest": lambda o: slowest(o),
    "pairs that drift apart": lambda o: apart(o),
    "still refused": lambda o: mean_text(o.over_seeds("refused", after, fmean)),
    "retention": lambda o: mean_text(o.over_seeds("tofu", kept, fmean)),
    "worst path's": lambda o: mean_text(o.over_seeds("tofu", kept, min)),
    "math change": lambda o: mean_text(o.over_seeds("math", rise, fmean)),
    "worst path's change": lambda o: mean_text(o.over_seeds("math", rise, min)),
    "retention's spread, equal forgetting": lambda o: mean_text(o.over_seeds("retention at equal forgetting", after, spread), 3),
}


def slowest(objective: Objective) -> str:
    """In how many seeds p=4's label fell least, with Wilson's 95% interval."""
    falls = [objective.by_path(seed, "label", fall) for seed in objective.seeds]
    hits = sum(of["p=4"] <= min(of.values()) for of in falls if "p=4" in of)
    low, high = binomtest(hits, len(falls)).proportion_ci(method="wilson")
    return f"{hits} of {len(falls)} ({low:.0%} to {high:.0%})"


def apart(objective: Objective) -> str:
    """How many pairs of paths drifted apart."""
    rows = [row for row in objective.rows if row.quantity == "between paths"]
    return f"{sum(row.after > row.before for row in rows)} of {len(rows)}"


def distances(rows: Sequence[Row], objective: Objective) -> list[str]:
    """Distance to the retrained model: before, after on the nearest and on the farthest path, and the nearest in multiples of the noise."""
    noise = fmean(row.after for row in rows if row.quantity == NOISE)
    before = objective.over_seeds("to retrained", lambda row: row.before, fmean)
    near, far = (objective.over_seeds("to retrained", after, of) for of in (min, max))
    return [geometric(before), geometric(near), geometric(far), geometric([one / noise for one in near])]


def methods_block(made_with: dict[str, str], rows: Sequence[Row]) -> str:
    """The tables between the page's markers."""
    seeds = sorted({row.seed for row in rows})
    local = made_with["local"].split(", ")
    objectives = [Objective(rows, name) for name in OBJECTIVE_NAMES if any(row.objective == name for row in rows)]
    head = (
        f"Written by `scripts/methods table runs/demo_methods` at commit {made_with['commit']}: seeds {', '.join(map(str, seeds))}; "
        f"{made_with['processor']}; {made_with['versions']}; {made_with['runs']}. Every seed's numbers: "
        "[data/demo_methods.csv](data/demo_methods.csv).\n"
    )
    rates = dict(pair.split("=") for pair in made_with.get("rates", "").split(", ") if pair)
    spent = dict(pair.split("=") for pair in made_with.get("costs", "").split(", ") if pair)
    first = ["| objective | local | rate | cost | " + " | ".join(COLUMNS) + " |"]
    first.append("| --- | --- | ---: | ---: |" + " ---: |" * len(COLUMNS))
    for one in objectives:
        cells = [
            OBJECTIVE_NAMES[one.name],
            "yes" if one.name in local else "no",
            rates.get(one.name, "–"),
            spent.get(one.name, "–"),
            *(cell(one) for cell in COLUMNS.values()),
        ]
        first.append(f"| {' | '.join(cells)} |")
    second = ["| objective | before | nearest path | farthest path | nearest, times the noise |", "| --- |" + " ---: |" * 4]
    second += [f"| {OBJECTIVE_NAMES[one.name]} | {' | '.join(distances(rows, one))} |" for one in objectives]
    noise = [row.after for row in rows if row.quantity == NOISE]
    said = f"Between the retrained models of two seeds lie {geometric(noise)} nats² ({len(noise)} pairs): the noise.\n"
    return "\n".join(
        [head, *first, "", "**Distance to the retrained model**, nats². " + said, *second, "", *relearning(rows), *ranks(objectives), ""]
    )


def ranks(objectives: Sequence[Objective]) -> list[str]:
    """Kendall's tau-b of the ranking of objectives between paths, by quantity: over all of them and over the local ones."""
    lines = ["| objectives ranked by | tau-b between paths | p=1 and p=4 alone |", "| --- | ---: | ---: |"]
    quantities = {
        "label drop": ("label", fall),
        "retention": ("tofu", kept),
        "math change": ("math", rise),
        "distance": ("to retrained", after),
    }
    if any(row.quantity == STEPS for one in objectives for row in one.rows):
        quantities[STEPS] = (STEPS, after)
    seeds = sorted({seed for one in objectives for seed in one.seeds})
    for title, (quantity, value) in quantities.items():
        found: list[list[float]] = [[], []]
        for seed in seeds:
            paths: dict[str, dict[str, float]] = {}
            for one in objectives:
                for path, number in one.by_path(seed, quantity, value).items():
                    paths.setdefault(path, {})[one.name] = number
            found[0].append(mean_tau(paths))
            found[1].append(mean_tau({path: paths.get(path, {}) for path in ("p=1", "p=4")}))
        lines.append(f"| {title} | {' | '.join(mean_text(one) for one in found)} |")
    return lines
