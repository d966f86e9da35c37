"""What the path decides under each variant of an objective: rows of a study, and the tables of docs/reproduce.md, made of them alone."""

import json
import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from statistics import fmean

from scripts.study_results.measured import ANSWERS, NAN, RETRAINED, Row, answered, made_with, recorded
from scripts.study_results.table_file import geometric
from scripts.study_results.twins import TWIN, described, own, spread, twins_of
from unlearn_lightning.records.statistics import Estimate, Share, estimate
from unlearn_lightning.records.study_data import Study, load_study
from unlearn_lightning.report.blocks import Table
from unlearn_lightning.report.columns import Change, Column, Counted, Interval, Number, Text
from unlearn_lightning.report.distances import Distances
from unlearn_lightning.report.sections.dependence import dependence_by_seed
from unlearn_lightning.report.sections.further_stages import further_by_seed, series
from unlearn_lightning.report.sections.recency import MEASURED, last_is_slowest
from unlearn_lightning.report.variants import extra_tags, variants

ALL = "all paths"
"""The path of a number that several paths give together."""
SLOWEST = "slowest: "
"""What the quantities begin with that are 1 where the path fell least and 0 where it did not."""


COMPARED_VARIANTS = {"label": False, "margin": False, "growth": True, **{SLOWEST + measure: False for measure in MEASURED}}
"""The quantities that are compared with a twin's, and whether on a log scale."""


_DEVIATIONS = (
    "Standard deviations of what is measured after unlearning, over the paths, between twins and between seeds; of growth, those of its "
    "natural logarithm. The last column counts the verdicts about the slowest path that both twins give."
)


def measured_variants(folder: Path) -> tuple[dict[str, str], list[Row]]:
    """What made the numbers, and all rows; the objective of a row is the variant's display name, such as `GA · lr=5e-05`."""
    study = load_study(folder)
    rows = [*_ends(study), *(_further(study) if series(study)[0] else _decided(study)), *answered(folder)]
    names: dict[str, str | None] = dict.fromkeys(study.objectives)
    for tag in extra_tags(study):
        families, values = variants(study, tag)
        for family in families.values():
            first, *others = [family[value] for value in values if value in family]
            names |= dict.fromkeys(others, first)
    return {**made_with(folder), "variants": json.dumps(names, ensure_ascii=False)}, rows


def _ends(study: Study) -> Iterator[Row]:
    for run in study.finished("unlearn"):
        for quantity, found in recorded(run.folder):
            yield Row(run.seed, study.path_of(run).label, run.objective, quantity, found[min(found)], found[max(found)])


def _decided(study: Study) -> Iterator[Row]:
    distances, (last, *others) = Distances(study), study.last_paths
    for variant in study.objectives:
        for seed, numbers in dependence_by_seed(study, variant, distances).items():
            yield from (Row(seed, ALL, variant, name, NAN, value) for name, value in numbers.items())
        for measure in MEASURED if not others else ():
            for seed, slowest in last_is_slowest(study, variant, measure).items():
                yield Row(seed, last.label, variant, SLOWEST + measure, NAN, float(slowest))


def _further(study: Study) -> Iterator[Row]:
    for variant in study.objectives:
        for path in series(study)[0]:
            for measure in MEASURED:
                for seed, (_, slowest) in further_by_seed(study, variant, path, measure).items():
                    yield Row(seed, path.label, variant, SLOWEST + measure, NAN, float(slowest))


class Variant:
    """The rows of one variant."""

    def __init__(self, rows: Sequence[Row], name: str):
        self.name = name
        self.rows = [row for row in rows if row.objective == name]
        self.seeds = sorted({row.seed for row in self.rows})

    def by_seed(self, quantity: str, path: str = ALL) -> dict[int, float]:
        """A quantity after unlearning, by seed; what was not measured is left out."""
        found = {row.seed: row.after for row in self.rows if (row.quantity, row.path) == (quantity, path)}
        return {seed: value for seed, value in found.items() if not math.isnan(value)}

    def mean(self, quantity: str) -> Estimate:
        """Its mean over seeds."""
        return estimate(self.by_seed(quantity).values())

    def over_paths(self, quantity: str, of: str = "mean") -> Estimate:
        """Mean over seeds of the mean, or the least, over the paths after unlearning."""
        found: dict[int, list[float]] = {}
        for row in self.rows:
            if row.quantity == quantity and row.path != ALL and not math.isnan(row.after):
                found.setdefault(row.seed, []).append(row.after)
        return estimate((fmean if of == "mean" else min)(values) for values in found.values())

    def change(self, quantity: str, path: str) -> tuple[Estimate, Estimate]:
        """Before and after unlearning on one path."""
        rows = [row for row in self.rows if (row.quantity, row.path) == (quantity, path)]
        return estimate(row.before for row in rows), estimate(row.after for row in rows)

    def slowest(self, measure: str, path: str) -> Share:
        """In how many seeds the path fell least."""
        found = self.by_seed(SLOWEST + measure, path)
        return Share(int(sum(found.values())), len(found), len(self.seeds) - len(found))


def variants_texts(made: dict[str, str], rows: Sequence[Row]) -> list[str]:
    """The tables of a study, in Markdown."""
    texts = [table.markdown() for table in variants_tables(made, own(rows))]
    return [*texts, f"{described(rows, made['twin'])} {_DEVIATIONS}\n", _twins_table(made, rows).markdown()] if twins_of(rows) else texts


def variants_tables(made: dict[str, str], rows: Sequence[Row]) -> list[Table]:
    """The tables of a study: what the path decides, how often the last path is the slowest, and what variants differ in.

    A variant of which no seed has all paths is left out.
    """
    compared: dict[str, str | None] = json.loads(made["variants"])
    known = {row.objective for row in rows if row.path == ALL or row.quantity.startswith(SLOWEST)}
    found = {name: Variant(rows, name) for name in compared if name in known}
    slow = list(dict.fromkeys(row.path for row in rows if row.quantity.startswith(SLOWEST)))
    if len(slow) > 1:
        return [_further_table(list(found.values()), sorted(slow, key=lambda path: (len(path), path)))]
    tables = [*_known_table(rows), _decided_table(list(found.values()))]
    tables += [_slowest_table(list(found.values()), slow[0])] if slow else []
    pairs = [(found[name], found[first]) for name, first in compared.items() if name in found and first in found]
    return [*tables, *([_changes_table(pairs)] if pairs else [])]


def _known_table(rows: Sequence[Row]) -> Iterator[Table]:
    """What was answered before unlearning, as tests/acceptance.py counted it, at each path's end; none where it was not run."""
    ends = sorted({row.path for row in rows if row.quantity.startswith(ANSWERS) and row.path.startswith(("p=", RETRAINED))})
    names = {"refused": "refused", "solved": "math right", "facts": "facts word for word"}
    table = Table("known", [Text("before unlearning"), *(Interval(title, digits=2) for title in names.values())])
    for path in ends:
        shares = [[row.before for row in rows if (row.path, row.quantity) == (path, ANSWERS + name)] for name in names]
        table.add(path, *map(estimate, shares))
    if ends:
        yield table


def _decided_table(found: Sequence[Variant]) -> Table:
    columns: list[Column] = [
        Text("objective"), Interval("label drop", digits=2), Interval("its spread", digits=2), Interval("relative", digits=2),
        Interval("forget score", digits=2), Interval("still refused", digits=2), Interval("math right, lowest path", digits=2),
        Interval("retention spread, equal forgetting", digits=3), Text("distance between paths, times that before", right=True),
    ]  # fmt: skip
    table = Table("decided", columns)
    for one in found:
        numbers = [one.mean(name) for name in ("label_drop", "label_spread", "label_relative", "forget_score")]
        ends = [one.over_paths("refused"), one.over_paths("math", "least"), one.mean("retention_spread")]
        table.add(one.name, *numbers, *ends, geometric(one.by_seed("growth").values()))
    return table


def _slowest_table(found: Sequence[Variant], path: str) -> Table:
    table = Table("slowest", [Text(f"{path} is the slowest by"), *(Counted(measured.title) for measured in MEASURED.values())])
    for one in found:
        table.add(one.name, *(one.slowest(measure, path) for measure in MEASURED))
    return table


def _changes_table(pairs: Sequence[tuple[Variant, Variant]]) -> Table:
    names = {
        "label_drop": "label drop", "label_relative": "its relative spread", "forget_relative": "forget score: relative spread",
        "retention_spread": "retention spread, equal forgetting",
    }  # fmt: skip
    columns = [Text("variant"), Text("minus"), *(Interval(title, digits=2, signed=True) for title in names.values())]
    table = Table("changes", [*columns, Text("distance's growth, times", right=True)])
    for one, first in pairs:
        cells = []
        for name in (*names, "growth"):
            mine, theirs = one.by_seed(name), first.by_seed(name)
            both = sorted(mine.keys() & theirs.keys())
            ratios = [mine[seed] / theirs[seed] for seed in both]
            cells.append(geometric(ratios) if name == "growth" else estimate(mine[seed] - theirs[seed] for seed in both))
        table.add(one.name, first.name, *cells)
    return table


def _further_table(found: Sequence[Variant], paths: Sequence[str]) -> Table:
    columns = [Text("objective"), Number("further stages", digits=0), Change("label", digits=2), Change("refused", digits=2)]
    table = Table("further", [*columns, *(Counted(f"slowest by {measured.title}") for measured in MEASURED.values())])
    for one in found:
        for further, path in enumerate(paths):
            ends = one.change("label", path), one.change("refused", path)
            shares = [one.slowest(measure, path) for measure in MEASURED]
            if any(share.n for share in shares):
                table.add(one.name, further, *ends, *shares)
    return table


def _twins_table(made: dict[str, str], rows: Sequence[Row]) -> Table:
    """Standard deviations between twins and between seeds, and how often both twins have the same path as the slowest or not."""
    names = {"label": "label", "margin": "margin", "growth": "distances' growth (log)"}
    columns = [Text(f"{name}: {between}", right=True) for name in names.values() for between in ("twins", "seeds")]
    table = Table("twins", [Text("objective"), *columns, Counted("slowest or not: the same")])
    for objective in json.loads(made["variants"]):
        found = [spread(rows, objective, quantity, COMPARED_VARIANTS[quantity]) for quantity in names]
        cells = [cell for one in found for cell in ((_deviation(one.twins), _deviation(one.seeds)) if one else (None, None))]
        verdicts = {row[:4]: row.after for row in rows if row.objective == objective and row.quantity.startswith((SLOWEST, TWIN + SLOWEST))}
        twins = {(seed, path, of, quantity.removeprefix(TWIN)): after for (seed, path, of, quantity), after in verdicts.items()
                 if quantity.startswith(TWIN)}  # fmt: skip
        same = [verdicts[place] == after for place, after in twins.items() if place in verdicts]
        if any(found):
            table.add(objective, *cells, Share(sum(same), len(same)))
    return table


def _deviation(value: float) -> str | None:
    return None if math.isnan(value) else f"{value:.2g}"
