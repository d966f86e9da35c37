"""What rounding does: a study beside its twin, the same seeds computed by another way that is equal up to rounding."""

import math
from collections.abc import Collection, Iterable, Iterator, Sequence
from statistics import fmean, variance
from typing import NamedTuple

from scripts.study_results.measured import Row, seeds_said

TWIN = "twin: "
"""What the quantities of a twin's rows begin with."""
COMPARED = {"label": False, "margin": False, "phrases": False, "tofu": False, "math": False, "to retrained": True, "between paths": True}
"""The quantities of docs/results.md that are compared, and whether on a log scale."""


class Spread(NamedTuple):
    """How far one quantity after unlearning differs, over all paths of one objective."""

    twins: float
    """Root mean square of the differences between twins, divided by √2: the standard deviation that rounding alone gives."""
    largest: float
    """The largest difference between twins."""
    seeds: float
    """Standard deviation between seeds, pooled over paths."""
    pairs: int


def as_twin(rows: Iterable[Row], compared: Collection[str] = COMPARED) -> Iterator[Row]:
    """The rows of a twin study whose quantities are compared, named as a twin's."""
    return (row._replace(quantity=TWIN + row.quantity) for row in rows if row.quantity in compared and row.objective)


def own(rows: Iterable[Row]) -> list[Row]:
    """The rows without the twin's."""
    return [row for row in rows if not row.quantity.startswith(TWIN)]


def twins_of(rows: Iterable[Row]) -> list[Row]:
    """The twin's rows."""
    return [row for row in rows if row.quantity.startswith(TWIN)]


def described(rows: Iterable[Row], how: str) -> str:
    """What stands above a table of twins: what the twin was computed with, and its seeds."""
    return f"**What rounding does.** The same study again with {how}, which is equal up to rounding: {seeds_said(twins_of(rows))}."


def spread(rows: Sequence[Row], objective: str, quantity: str, log: bool = False) -> Spread | None:
    """Differences of `after` between twins and between seeds, in the quantity's unit or of its logarithm; None without a twin."""

    def values(name: str) -> dict[tuple[str, int], float]:
        found = {(row.path, row.seed): row.after for row in rows if row.objective == objective and row.quantity == name}
        return {place: math.log(value) if log else value for place, value in found.items() if not math.isnan(value)}

    mine, theirs = values(quantity), values(TWIN + quantity)
    differences = [abs(mine[place] - theirs[place]) for place in mine.keys() & theirs.keys()]
    if not differences:
        return None
    by_path: dict[str, list[float]] = {}
    for (path, _), value in mine.items():
        by_path.setdefault(path, []).append(value)
    variances = [variance(of) for of in by_path.values() if len(of) > 1]
    seeds = math.sqrt(fmean(variances)) if variances else math.nan
    return Spread(math.sqrt(fmean([one**2 / 2 for one in differences])), max(differences), seeds, len(differences))


def verdicts(rows: Sequence[Row], objective: str) -> tuple[int, int, int, int]:
    """Of how many seeds the slowest path is the twin's too, and how many pairs drift the same way: same, of, pairs, of pairs."""

    def slowest(prefix: str) -> dict[int, str]:
        falls: dict[int, dict[str, float]] = {}
        for row in rows:
            if row.objective == objective and row.quantity == f"{prefix}label":
                falls.setdefault(row.seed, {})[row.path] = row.before - row.after
        return {seed: min(of, key=of.__getitem__) for seed, of in falls.items()}

    def apart(prefix: str) -> dict[tuple[int, str], bool]:
        pairs = (row for row in rows if row.objective == objective and row.quantity == f"{prefix}between paths")
        return {(row.seed, row.path): row.after > row.before for row in pairs}

    mine, theirs, my_pairs, their_pairs = slowest(""), slowest(TWIN), apart(""), apart(TWIN)
    seeds, pairs = mine.keys() & theirs.keys(), my_pairs.keys() & their_pairs.keys()
    return sum(mine[s] == theirs[s] for s in seeds), len(seeds), sum(my_pairs[p] == their_pairs[p] for p in pairs), len(pairs)
