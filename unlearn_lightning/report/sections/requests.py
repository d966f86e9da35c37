"""Does the order of requests matter? The forget set unlearned part by part in every order: spread of each metric, memory by place."""

import math
from collections.abc import Iterable, Iterator
from functools import cached_property
from itertools import groupby

from unlearn_lightning.records import Quantity
from unlearn_lightning.records.statistics import estimate
from unlearn_lightning.records.study_data import RunRecord
from unlearn_lightning.report.blocks import Block, Table
from unlearn_lightning.report.columns import Column, Interval, Number, Text
from unlearn_lightning.report.section import Section

Key = tuple[str, tuple[str, ...]]
PART = "request"


class Requests(Section):
    """Two tables: over the orders, each metric of the final models; by place in the order, how much of a part is left."""

    place = 64
    heading = "Does the order of requests matter?"
    caption = (
        "The forget set was cut into parts that were unlearned one after the other, in every order. Spread: the largest value of the final "
        "models over all orders less the smallest, a mean over seeds with its 95% interval; 0 where the order does not matter."
    )

    def blocks(self) -> Iterable[Block]:
        yield self._spread()
        yield self._by_place()

    def problems(self) -> Iterable[str]:
        for (name, path), seeds in self._finals.items():
            for seed, runs in seeds.items():
                whole = math.factorial(len(runs[0].tags["requests"]))
                if len(runs) < whole:
                    where = f"{name} on {' → '.join(path)}, seed {seed}"
                    yield f"{where}: {len(runs)} of {whole} orders of requests are finished, so that no spread is given"

    @cached_property
    def _finals(self) -> dict[Key, dict[int, list[RunRecord]]]:
        """The finished runs that unlearned the last part of an order, by objective and path, and by seed."""
        runs = [run for run in self.study.runs if run.kind == PART and run.tags.get("requests")]
        parts = max((len(run.tags["requests"]) for run in runs), default=0)
        found: dict[Key, dict[int, list[RunRecord]]] = {}
        for run in runs:
            if run.status == "finished" and len(run.tags["requests"]) == parts:
                found.setdefault((str(run.tags["objective"]), run.stages), {}).setdefault(run.seed, []).append(run)
        return found

    @cached_property
    def _whole(self) -> dict[Key, list[list[RunRecord]]]:
        """Those seeds of which every order is finished."""
        return {
            key: whole
            for key, seeds in self._finals.items()
            if (whole := [runs for runs in seeds.values() if len(runs) == math.factorial(len(runs[0].tags["requests"]))])
        }

    def _spread(self) -> Table:
        columns: list[Column] = [Text("objective", heads=True), Text("path", rank=2), Text("metric", rank=0), Text("unit", rank=2)]
        columns += [
            Interval("smallest", rank=1),
            Interval("largest", rank=1),
            Interval("spread", rank=0),
            Number("orders", digits=0, rank=1),
        ]
        table = Table("requests", columns, on_terminal=True)
        for (name, path), seeds in self._whole.items():
            metrics = {metric: quantity for runs in seeds for run in runs for metric, quantity, _ in _last(run)}
            for metric, quantity in metrics.items():
                values = [[value for run in runs for known, _, value in _last(run) if known == metric] for runs in seeds]
                ends = [(min(known), max(known)) for known in values if len(known) == len(seeds[0]) and all(map(math.isfinite, known))]
                if ends:
                    low, high = (estimate([end[i] for end in ends]) for i in (0, 1))
                    spread = estimate([last - first for first, last in ends])
                    table.add(name, " → ".join(path), metric, quantity.unit, low, high, spread, len(seeds[0]))
        return table

    def _by_place(self) -> Table:
        columns: list[Column] = [Text("objective", heads=True), Text("path", rank=2), Text("metric", rank=0)]
        columns += [
            Number("place in the order", "place", digits=0, rank=0),
            Interval("of a part unlearned there, at the end", "left", rank=0),
        ]
        heading = "What is left of a part, by the place at which it was unlearned"
        table = Table("requests_by_place", columns, heading=heading, on_terminal=True)
        for (name, path), seeds in self._whole.items():
            found: dict[tuple[str, int], list[float]] = {}
            for runs in seeds:
                means = sorted((quantity, place, value) for run in runs for quantity, place, value in _parts(run))
                for (quantity, place), group in groupby(means, key=lambda one: one[:2]):
                    values = [value for *_, value in group]
                    found.setdefault((quantity, place), []).append(sum(values) / len(values))
            for (quantity, place), values in found.items():
                table.add(name, " → ".join(path), quantity, place, estimate(values))
        return table


def _last(run: RunRecord) -> Iterator[tuple[str, Quantity, float]]:
    """Every metric of a run's last step."""
    for place in sorted((run.folder / "records").glob("*")):
        records = run.records(place.name)
        for metric, value in (records[max(records)]["metrics"] if records else {}).items():
            yield metric, Quantity.of(records[max(records)], metric), value


def _parts(run: RunRecord) -> Iterator[tuple[str, int, float]]:
    """Of each part's memory at the end: the quantity, the place at which the part was unlearned, and the value."""
    order = [int(part) for part in run.tags["requests"]]
    for metric, _, value in _last(run):
        probe, _, quantity = metric.partition("/")
        part = probe.removeprefix(PART)
        if probe.startswith(PART) and part.isdecimal() and int(part) in order:
            yield quantity, order.index(int(part)) + 1, value
