"""What rounding does: a study beside its twin, the same seeds computed by another way that is equal up to rounding."""

import math
from collections.abc import Collection, Iterable, Iterator, Sequence
from statistics import fmean, variance
from typing import NamedTuple

from scripts.study_results.measured import Row, seeds_said
from unlearn_lightning.records.study_data import OBJECTIVE_NAMES

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
    which = f"{seeds_said(twins_of(rows))}{_part(rows)}"
    return f"**What rounding does.** The same study again with {how}, which is equal up to rounding: {which}."


def _part(rows: Sequence[Row]) -> str:
    """The paths and objectives that the twin has, where it has not all of the study's."""
    unlearned = [row for row in rows if row.objective]
    mine, theirs = ({(row.objective, row.path) for row in unlearned if row.quantity == f"{twin}label"} for twin in ("", TWIN))
    if not theirs or mine <= theirs:
        return ""
    objectives, paths = (sorted({place[at] for place in theirs}) for at in (0, 1))
    return f"; {', '.join(paths)} under {', '.join(OBJECTIVE_NAMES.get(name, name) for name in objectives)} alone"


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
    """Of how many seeds the slowest path is the twin's too, and how many pairs drift the same way: same, of, pairs, of pairs.

    The slowest is looked for among the paths that both twins have; a seed with fewer than two of them does not count.
    """

    def falls(prefix: str) -> dict[tuple[int, str], float]:
        labels = (row for row in rows if row.objective == objective and row.quantity == f"{prefix}label")
        return {(row.seed, row.path): row.before - row.after for row in labels}

    def slowest(found: dict[tuple[int, str], float]) -> dict[int, str]:
        by_seed: dict[int, dict[str, float]] = {}
        for seed, path in both:
            by_seed.setdefault(seed, {})[path] = found[seed, path]
        return {seed: min(of, key=of.__getitem__) for seed, of in by_seed.items() if len(of) > 1}

    def apart(prefix: str) -> dict[tuple[int, str], bool]:
        pairs = (row for row in rows if row.objective == objective and row.quantity == f"{prefix}between paths")
        return {(row.seed, row.path): row.after > row.before for row in pairs}

    my_falls, their_falls = falls(""), falls(TWIN)
    both = my_falls.keys() & their_falls.keys()
    mine, theirs, my_pairs, their_pairs = slowest(my_falls), slowest(their_falls), apart(""), apart(TWIN)
    seeds, pairs = mine.keys() & theirs.keys(), my_pairs.keys() & their_pairs.keys()
    return sum(mine[s] == theirs[s] for s in seeds), len(seeds), sum(my_pairs[p] == their_pairs[p] for p in pairs), len(pairs)
