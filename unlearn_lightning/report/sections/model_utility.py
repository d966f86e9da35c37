"""TOFU's model utility: the harmonic mean of nine measurements, and which of them are missing.

The probes are known by how their names begin, `retain`, `real_authors` and `world_facts`, and by what they measure.
"""

import math
from collections.abc import Iterable

from unlearn_lightning.inference.truth_ratio import model_utility
from unlearn_lightning.records import metric_key
from unlearn_lightning.records.measured import Group, groups, probes
from unlearn_lightning.records.statistics import Estimate, estimate
from unlearn_lightning.records.study_data import RunRecord
from unlearn_lightning.report.blocks import Block, Table
from unlearn_lightning.report.columns import Change, Column, Paths, Text
from unlearn_lightning.report.section import Section

SETS = {"retain": "retain set", "real_authors": "real authors", "world_facts": "world facts"}
QUANTITIES = {"probability": "probability", "rouge_l_recall": "ROUGE-L recall", "utility_score": "truth ratio's utility score"}
Nine = dict[tuple[str, str], dict[int, float]]


class ModelUtility(Section):
    """A table of the nine and their harmonic mean; nothing takes the place of one that is missing."""

    place = 63
    heading = "Model utility"
    caption = (
        "TOFU's model utility is the harmonic mean of nine numbers between 0 and 1, up to 1 where everything is kept: probability, ROUGE-L "
        "recall and the truth ratio's utility score on retain set, real authors and world facts. The probability of the latter two is the "
        "correct answer's share of all answers."
    )

    def blocks(self) -> Iterable[Block]:
        members = groups(self.study, "unlearn", "measured")
        paths = any(group.path for group in members)
        columns: list[Column] = [Text("run", heads=True), *([Paths(heads=True)] if paths else []), Text("of"), Text("quantity")]
        table = Table("model_utility", [*columns, Change("before → after", "before")], on_terminal=True)
        for group in members:
            named = [group.name, *([group.path] if paths else [])]
            found = [nine(run) for run in group.runs]
            if not any(map(asked, found)):
                continue
            for part, quantity in (pair for pair in ALL if any(pair in values for values in found)):
                ends = [_ends(values.get((part, quantity), {})) for values in found]
                table.add(*named, SETS[part], QUANTITIES[quantity], _estimates(ends))
            if any(not missing(values) for values in found):
                table.add(*named, "all nine", "model utility", _estimates([utility(values) for values in found]), marked=True)
        return [table]

    def problems(self) -> Iterable[str]:
        for group in groups(self.study, "unlearn", "measured"):
            yield from _lacking(group)


ALL = [(part, quantity) for part in SETS for quantity in QUANTITIES]


def nine(run: RunRecord) -> Nine:
    """What a run measured of the nine, by set and quantity: values in [0, 1] by step."""
    found: Nine = {}
    for probe in probes([run]):
        part = next((part for part in SETS if probe.startswith(part)), None)
        records = run.records(probe)
        if part is None or not records:
            continue
        there = {name.removeprefix(metric_key(probe, "")) for name in records[max(records)]["metrics"]}
        for quantity in QUANTITIES.keys() & there | ({"probability"} if "normalised_probability" in there else set()):
            # The truth ratio's own probability is a paraphrase's; of real authors and world facts the correct answer's share counts.
            ratio = "utility_score" in there
            if quantity == "probability" and ratio is (part == "retain"):
                continue
            name = "normalised_probability" if quantity == "probability" and ratio else quantity
            found.setdefault((part, quantity), run.metric(probe, metric_key(probe, name)))
    return found


def asked(values: Nine) -> bool:
    """Whether model utility is meant: any run may have a probe of the name `retain`, but only TOFU's protocol has more of the nine."""
    return any(part != "retain" or quantity == "utility_score" for part, quantity in values)


def missing(values: Nine) -> list[str]:
    """The names of those of the nine that were not measured."""
    return [f"{QUANTITIES[quantity]} on {SETS[part]}" for part, quantity in ALL if not values.get((part, quantity))]


def utility(values: Nine) -> tuple[float, float]:
    """Model utility at the first and the last measured step; nan where one of the nine is missing or no number."""
    if missing(values):
        return math.nan, math.nan
    before, after = zip(*(_ends(values[pair]) for pair in ALL), strict=True)
    return _of(before), _of(after)


def _of(values: tuple[float, ...]) -> float:
    return math.nan if any(map(math.isnan, values)) else model_utility(values)


def _ends(curve: dict[int, float]) -> tuple[float, float]:
    """The first and the last value; a single measurement is the last."""
    return (curve[min(curve)] if len(curve) > 1 else math.nan, curve[max(curve)]) if curve else (math.nan, math.nan)


def _estimates(ends: list[tuple[float, float]]) -> tuple[Estimate, Estimate]:
    return estimate(first for first, _ in ends), estimate(last for _, last in ends)


def _lacking(group: Group) -> Iterable[str]:
    """One line for each run of which some and not all of the nine were measured by probes of these names."""
    for run in group.runs:
        values = nine(run)
        if asked(values) and (lacking := missing(values)):
            yield f"No model utility of {run.name}: not measured are {', '.join(lacking)}"
