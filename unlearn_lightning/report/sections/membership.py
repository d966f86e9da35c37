"""Membership inference beside the retrained model's, and PrivLeak, from the records of `MembershipInference`."""

import math
from collections.abc import Iterable, Sequence

from unlearn_lightning.inference.membership import ATTACKS, against_retrained, aucs
from unlearn_lightning.records import metric_key
from unlearn_lightning.records.statistics import estimate
from unlearn_lightning.records.study_data import RunRecord
from unlearn_lightning.report.blocks import Block, Table
from unlearn_lightning.report.columns import Change, Interval, Text
from unlearn_lightning.report.section import Section
from unlearn_lightning.report.sections.forget_quality import measured, retrained_record

Values = dict[str, float]


class Membership(Section):
    """A row per attack; why PrivLeak is refused stands among the problems."""

    place = 62
    heading = "Membership inference"
    caption = (
        "AUC of telling the forget set from texts that were never trained on: 1 where it is clearly remembered, 0.5 where nothing tells, "
        "0 where it is forgotten beyond that. The target is the retrained model's. PrivLeak is 0 there, and below 0 where too little was "
        "unlearned."
    )

    def blocks(self) -> Iterable[Block]:
        columns = [
            Text("run", heads=True),
            Text("probe"),
            Text("attack"),
            Change("AUC", "auc_before", after="auc_after"),
            Interval("retrained"),
        ]
        table = Table("membership", [*columns, Interval("PrivLeak (%)", "privleak", digits=1, signed=True)], on_terminal=True)
        for group, probe in measured(self.study, "min_k"):
            found = [[self._values(run, probe, record)[0] for record in run.records(probe).values()] for run in group.runs]
            for attack, title in ATTACKS.items():
                cells = [_ends(found, f"{attack}_auc"), _last(found, f"{attack}_auc_retrained")]
                if cells[0][1].n:
                    table.add(group.label, probe, title, *cells, _last(found, "privleak" if attack == "min_k" else ""))
        return [table]

    def _values(self, run: RunRecord, probe: str, record: dict[str, object]) -> tuple[Values, str]:
        """The AUCs, those of the retrained model and PrivLeak, where they are known; and why PrivLeak is refused."""
        examples: list[dict[str, object]] = record["examples"]  # type: ignore[assignment]
        said: Values = {name.removeprefix(metric_key(probe, "")): value for name, value in record["metrics"].items()}  # type: ignore[attr-defined]
        theirs = retrained_record(self.study, run, probe)
        if "min_k_auc_retrained" in said or theirs is None:
            return said, ""
        more, refused = against_retrained(examples, theirs["examples"])
        return {**aucs(examples), **more}, refused

    def problems(self) -> Iterable[str]:
        for group, probe in measured(self.study, "min_k"):
            for run in group.runs:
                values, refused = self._values(run, probe, list(run.records(probe).values())[-1])
                if refused:
                    yield f"No PrivLeak of {run.name}: {refused}"
                elif "min_k_auc_retrained" not in values:
                    yield f"No retrained model's AUC beside {run.name}: no finished run without the forget stage has records of {probe}"


def _last(found: Sequence[Sequence[Values]], name: str):  # type: ignore[no-untyped-def]
    return estimate(curve[-1].get(name, math.nan) for curve in found if curve)


def _ends(found: Sequence[Sequence[Values]], name: str):  # type: ignore[no-untyped-def]
    return estimate(curve[0].get(name, math.nan) for curve in found if len(curve) > 1), _last(found, name)
