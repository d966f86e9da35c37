"""TOFU's forget quality: whether the truth ratios of unlearned and retrained model can be told apart, from the records of `TruthRatio`."""

import math
from collections.abc import Iterable, Iterator

from unlearn_lightning.inference.truth_ratio import quality_metrics
from unlearn_lightning.records import metric_key
from unlearn_lightning.records.measured import Group, groups, probes
from unlearn_lightning.records.run_records import Record
from unlearn_lightning.records.statistics import estimate
from unlearn_lightning.records.study_data import RunRecord, Study
from unlearn_lightning.report.blocks import Block, Table
from unlearn_lightning.report.columns import Change, Number, Text
from unlearn_lightning.report.section import Section

VALUES = ("forget_quality", "log10_forget_quality", "forget_quality_n")
KEPT = ("retain", "real_authors", "world_facts")
"""How the names of probes begin that measure what is kept."""


class ForgetQuality(Section):
    """A table; a run without a retrained model gets a line that says so, and no number."""

    place = 61
    heading = "Forget quality"
    caption = (
        "p-value of the two-sided two-sample Kolmogorov-Smirnov test between the truth ratios of the unlearned and the retrained model on "
        "the forget set: high where they cannot be told apart. p-values of different numbers of examples cannot be compared."
    )

    def blocks(self) -> Iterable[Block]:
        columns = [
            Text("run", heads=True),
            Text("probe"),
            Change("p", "p_before", after="p_after"),
            Change("log10 p", "log10_before", after="log10_after"),
        ]
        table = Table("forget_quality", [*columns, Number("examples", digits=0)], on_terminal=True)
        for group, probe in measured(self.study, "log_truth_ratio"):
            if probe.startswith(KEPT):
                continue
            found = [(first, last) for run in group.runs if (ends := self._ends(run, probe)) for first, last in [ends]]
            if found:
                cells = [tuple(estimate(end[value] for end in ends) for ends in zip(*found, strict=True)) for value in VALUES[:2]]
                table.add(group.label, probe, *cells, found[-1][1][VALUES[2]])
        return [table]

    def _ends(self, run: RunRecord, probe: str) -> tuple[dict[str, float], dict[str, float]] | None:
        """The values at the first and the last measured step; the former nan where there is one step."""
        found = [quality for record in run.records(probe).values() if (quality := self._quality(run, probe, record))]
        return ((found[0] if len(found) > 1 else dict.fromkeys(VALUES, math.nan)), found[-1]) if found else None

    def _quality(self, run: RunRecord, probe: str, record: Record) -> dict[str, float] | None:
        """What `--against` wrote into the record, or what follows from the study's own retrained model."""
        said = {value: record["metrics"].get(metric_key(probe, value)) for value in VALUES}
        if None not in said.values():
            return said
        theirs = retrained_record(self.study, run, probe)
        return None if theirs is None else quality_metrics([one["log_truth_ratio"] for one in record["examples"]], theirs["examples"])

    def problems(self) -> Iterable[str]:
        for group, probe in measured(self.study, "log_truth_ratio"):
            lacking = [run.name for run in group.runs if not probe.startswith(KEPT) and self._ends(run, probe) is None]
            if lacking:
                yield (
                    f"No forget quality of {', '.join(lacking)}: no finished run without the forget stage has records of {probe} "
                    f"(unlearn validate RUN --measure {probe} --against RETRAINED measures one)"
                )


def measured(study: Study, field: str) -> Iterator[tuple[Group, str]]:
    """Each group of unlearned or measured runs with each of its probes whose rows have a certain field."""
    for group in groups(study, "unlearn", "measured"):
        for probe in probes(group.runs):
            records = [record for run in group.runs for record in run.records(probe).values()]
            if any(field in one for record in records for one in record["examples"][:1]):
                yield group, probe


def retrained_record(study: Study, run: RunRecord, probe: str) -> Record | None:
    """The last record of a probe of the run's retrained model; null where there is no such model, or it was not measured alike."""
    model = study.retrained(run.seed, run.stages) if run.stages else None
    records = model.records(probe) if model else {}
    if not records:
        return None
    theirs, ours = records[max(records)], next(iter(run.records(probe).values()))
    return theirs if [one["id"] for one in theirs["examples"]] == [one["id"] for one in ours["examples"]] else None
