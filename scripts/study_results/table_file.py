"""The CSV, and the Markdown that is made of it: means over seeds with 95% intervals, of distances and ratios on a log scale."""

import csv
import io
import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from statistics import fmean, stdev

from scipy.special import stdtrit
from scipy.stats import binomtest

from scripts.study_results.measured import ANSWERS, RETRAINED, Row, seeds_said
from scripts.study_results.twins import COMPARED, described, own, spread, twins_of, verdicts
from unlearn_lightning.records.study_data import OBJECTIVE_NAMES


def write(path: Path, made_with: dict[str, str], rows: Iterable[Row]) -> None:
    """Comment lines that say what made the numbers, then a row per number."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(Row.__annotations__)
    for row in sorted(rows, key=lambda row: row[:4]):
        writer.writerow([*row[:4], *("" if math.isnan(value) else f"{value:.6g}" for value in row[4:])])
    path.write_text("".join(f"# {name}: {value}\n" for name, value in made_with.items()) + text.getvalue())


def read(path: Path) -> tuple[dict[str, str], list[Row]]:
    """What `write` wrote."""
    lines = path.read_text().splitlines()
    made_with = dict(line[2:].split(": ", 1) for line in lines if line.startswith("# "))
    rows = csv.DictReader(line for line in lines if not line.startswith("# "))
    return made_with, [
        Row(int(row["seed"]), row["path"], row["objective"], row["quantity"], *(float(row[name] or "nan") for name in ("before", "after")))
        for row in rows
    ]


def put(page: str, name: str, text: str) -> str:
    """The page with the text between the study's markers.

    Raises:
        ValueError: the page has no such markers.
    """
    first, last = f"<!-- results of {name} -->\n", f"<!-- end of {name} -->"
    if first not in page or last not in page:
        raise ValueError(f"The page has no lines {first.strip()!r} and {last!r}: put them where the tables of {name} belong.")
    return page[: page.index(first) + len(first)] + text + page[page.index(last) :]


def block(name: str, made_with: dict[str, str], rows: Sequence[Row]) -> str:
    """The tables of a study, of its CSV alone."""
    head = origin(f"runs/{name}", f"data/{name}.csv", made_with, rows)
    mine = own(rows)
    return "\n".join(
        [head, _start(mine), _objectives(mine, int(made_with["steps"])), _drift(mine), _recency(mine), *_rounding(rows, made_with)]
    )


def origin(command: str, file: str, made_with: dict[str, str], rows: Sequence[Row]) -> str:
    """The line above a study's tables: the command that wrote them, and what made the numbers."""
    return (
        f"Written by `scripts/results {command}` at commit {made_with['commit']}: {seeds_said(rows)}; {made_with['processor']}; "
        f"{made_with['versions']}; {made_with['runs']}. Every seed's numbers: [{file}]({file}).\n"
    )


def _start(rows: Sequence[Row]) -> str:
    paths = _order({row.path for row in rows if row.path.startswith(RETRAINED) or (row.path.startswith("p=") and " " not in row.path)})
    further = _there(rows, SUMS)
    heads = ["before unlearning", "refused", "math right", "facts word for word", *further.values(), "label", "first token"]
    lines = []
    asked = any(row.quantity.startswith(ANSWERS) for row in rows)
    for path in paths:
        objective = (
            "" if path.startswith(RETRAINED) else min((row.objective for row in rows if row.path == path and row.objective), default="")
        )
        if asked:
            shares = [_mean(rows, path, "", ANSWERS + what, "before") for what in ("refused", "solved", "facts")]
        else:
            shares = [*(_mean(rows, path, objective, what, "before") for what in ("refused", "math")), "–"]
        rest = [_mean(rows, path, objective, what, "before") for what in (*further, "label", "first token")]
        lines.append([path, *shares, *rest])
    return _table(heads, lines, 1)


SUMS = {"sums": "sums right", "sums named": "number named", "sums refused": "sums refused"}


def _there(rows: Sequence[Row], heads: dict[str, str]) -> dict[str, str]:
    """The heads of those quantities that were measured."""
    return {what: head for what, head in heads.items() if any(row.quantity == what for row in rows)}


def _objectives(rows: Sequence[Row], steps: int) -> str:
    # Of a model that solves no problem of GSM8K, a study measures the likelihood of right solutions, and sums.
    further = _there(rows, {"solutions": "held-out solutions, nats", **SUMS})
    scored = {"label": "label", "margin": "margin, logits", "refused": "refused", "math": "math right", **further, "tofu": "TOFU, nats"}
    heads = [*scored.values(), "distance to retrained", "its growth a step", "gradient weight"]
    lines = []
    for objective in [name for name in OBJECTIVE_NAMES if any(row.objective == name for row in rows)]:
        for path in _order({row.path for row in rows if row.objective == objective and row.quantity == "label"}):
            cells = [" → ".join(_mean(rows, path, objective, what, when) for when in ("before", "after")) for what in scored]
            cells.append(" → ".join(geometric(getattr(row, when) for row in _of(rows, path, objective, "to retrained"))
                                    for when in ("before", "after")))  # fmt: skip
            cells.append(mean_text([math.log(row.after / row.before) / steps for row in _of(rows, path, objective, "to retrained")], 3))
            weight = [" → ".join(_mean(rows, path, objective, "gradient weight", when) for when in ("before", "after"))]
            cells += weight if _of(rows, path, objective, "gradient weight") else ["1"]
            lines.append([path, OBJECTIVE_NAMES[objective], *cells])
    return _table(["path", "objective", *heads], lines, 2)


def _table(heads: Sequence[str], lines: Sequence[Sequence[str]], texts: int) -> str:
    """A Markdown table, the first `texts` columns flush left, without the columns in which nothing was measured."""
    kept = [place for place, head in enumerate(heads) if not lines or any(set(line[place]) - set("– →") for line in lines)]
    rule = ["---" if place < texts else "---:" for place in kept]
    shown = [[line[place] for place in kept] for line in [heads, *lines]]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in [shown[0], rule, *shown[1:]]) + "\n"


def _drift(rows: Sequence[Row]) -> str:
    lines = ["| objective | pairs of paths that drifted apart | by a factor of |", "| --- | ---: | ---: |"]
    for objective, name in OBJECTIVE_NAMES.items():
        pairs = [row for row in rows if row.objective == objective and row.quantity == "between paths"]
        if pairs:
            # Seeds are independent, pairs of one seed are not: the interval is over the seeds' geometric means.
            seeds = sorted({row.seed for row in pairs})
            factors = [math.exp(fmean(math.log(row.after / row.before) for row in pairs if row.seed == seed)) for seed in seeds]
            lines.append(f"| {name} | {sum(row.after > row.before for row in pairs)} of {len(pairs)} | {geometric(factors)} |")
    return "\n".join(lines) + "\n"


def _recency(rows: Sequence[Row]) -> str:
    lines = ["| objective | seeds in which p=4's label fell least | 95% interval (chance: 25%) |", "| --- | ---: | ---: |"]
    for objective, name in OBJECTIVE_NAMES.items():
        fell = {(row.seed, row.path): row.before - row.after for row in rows if row.objective == objective and row.quantity == "label"}
        # A seed is compared once it has another path than the last.
        seeds = {seed for seed, path in fell if path == "p=4"} & {seed for seed, path in fell if path != "p=4"}
        if seeds:
            least = sum(fell[seed, "p=4"] <= min(value for (of, _), value in fell.items() if of == seed) for seed in seeds)
            low, high = binomtest(least, len(seeds)).proportion_ci(method="wilson")
            lines.append(f"| {name} | {least} of {len(seeds)} | {low:.0%} to {high:.0%} |")
    return "\n".join(lines) + "\n"


def _rounding(rows: Sequence[Row], made_with: dict[str, str]) -> Iterable[str]:
    if not twins_of(rows):
        return
    yield (
        f"{described(rows, made_with['twin'])} Standard deviations of what is measured after unlearning, over the paths; those of "
        "distances are of their natural logarithms.\n"
    )
    lines = ["| after unlearning | objective | between twins | the largest difference | between seeds |", "| --- | --- |" + " ---: |" * 3]
    for quantity, log in COMPARED.items():
        for objective, name in OBJECTIVE_NAMES.items():
            if found := spread(rows, objective, quantity, log):
                numbers = " | ".join("–" if math.isnan(one) else f"{one:.2g}" for one in (found.twins, found.largest, found.seeds))
                lines.append(f"| {quantity}{' (log)' if log else ''} | {name} | {numbers} |")
    yield "\n".join(lines) + "\n"
    lines = ["| objective | the same path's label fell least in both twins | the same pairs drifted apart |", "| --- | ---: | ---: |"]
    for objective, name in OBJECTIVE_NAMES.items():
        same, of, pairs, of_pairs = verdicts(rows, objective)
        if of:
            lines.append(f"| {name} | {same} of {of} seeds | {pairs} of {of_pairs} |")
    yield "\n".join(lines) + "\n"


def _of(rows: Sequence[Row], path: str, objective: str, quantity: str) -> list[Row]:
    return [row for row in rows if (row.path, row.objective, row.quantity) == (path, objective, quantity)]


def _order(paths: set[str]) -> list[str]:
    return sorted(paths)


def _mean(rows: Sequence[Row], path: str, objective: str, quantity: str, when: str) -> str:
    return mean_text([getattr(row, when) for row in _of(rows, path, objective, quantity)])


def mean_text(values: Sequence[float], digits: int = 2) -> str:
    """Mean ± half width of the 95% t-interval over seeds; of one seed the value alone."""
    known = [value for value in values if not math.isnan(value)]
    if not known:
        return "–"
    half = f" ± {_half_width(known):.{digits}f}" if len(known) > 1 else ""
    return f"{fmean(known):.{digits}f}{half}".replace("-", "−")


def geometric(values: Iterable[float]) -> str:
    """Geometric mean and, with several seeds, the t-interval of the logarithms: "952 (410 to 2200)"."""
    logs = [math.log(value) for value in values]
    if not logs:
        return "–"
    center, half = fmean(logs), _half_width(logs) if len(logs) > 1 else math.nan
    mean = f"{math.exp(center):.3g}"
    return mean if math.isnan(half) else f"{mean} ({math.exp(center - half):.3g} to {math.exp(center + half):.3g})"


def _half_width(values: Sequence[float]) -> float:
    return float(stdtrit(len(values) - 1, 0.975)) * stdev(values) / math.sqrt(len(values))
