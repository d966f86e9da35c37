"""Is forgetting deep or superficial? A figure, a table and the verdict by the paper's rule (`report.depths`)."""

from collections.abc import Iterable, Sequence
from functools import cached_property
from typing import Any

from unlearn_lightning.records.settings import read_yaml
from unlearn_lightning.records.statistics import Share
from unlearn_lightning.records.study_data import RunRecord, Study
from unlearn_lightning.report.blocks import Block, File, Table
from unlearn_lightning.report.chart import Chart, Line, Panel, averaged
from unlearn_lightning.report.columns import Change, Interval, Number, Paths, Text
from unlearn_lightning.report.depths import (
    COMPLIANCE,
    FAMILIES,
    KINDS,
    PROBE,
    REFUSAL,
    UNLEARNED,
    OrderDepth,
    as_in_the_paper,
    deep_by_start,
    depths,
    family_curves,
    whole_seeds,
)  # fmt: skip
from unlearn_lightning.report.section import Section, Verdict

HUES = {REFUSAL: 5, COMPLIANCE: 0, UNLEARNED: 3}
"""Each response's colour, as an index of the palette."""


def depth_charts(study: Study) -> list[Chart]:
    """A figure per objective with a panel per order: R, C and U against the unlearning epoch; none without such records."""
    charts = []
    for number, objective in enumerate(dict.fromkeys(one.objective for one in depths(study))):
        panels = [Panel(path.label, lines) for path in study.paths if (lines := _lines(study.unlearned(objective, path)))]
        several = f" under {objective}" if len(study.objectives) > 1 else ""
        caption = (
            "Log-likelihoods in nats, summed over a response's tokens, mean over prompts: R the refusal, C the compliance, U the same in "
            "other words, which is unlearned. Where C falls below R with U, forgetting is deep; where only U falls, it is superficial."
        )
        heading = f"Does forgetting U reach C{several}?"
        x_title = "unlearning epoch" if all(_epochs(run) > 0 for run in study.finished("unlearn")) else "unlearning step"
        key = f"families_{number}" if number else "families"
        charts.append(Chart(key, heading, caption, x_title, "log-likelihood (nats/response)", panels, columns=2))
    return charts


def epoch_steps(run: RunRecord) -> float:
    """Optimizer steps in an epoch of a finished run; 1 where its length was not given in epochs, so that steps count."""
    return run.info["steps"] / _epochs(run) if _epochs(run) > 0 else 1


def _epochs(run: RunRecord) -> int:
    return (read_yaml(run.folder / "config.yaml").get("trainer") or {}).get("max_epochs") or -1


def _lines(runs: list[RunRecord]) -> list[Line]:
    lines = []
    for name in FAMILIES:
        curves = [curve for run in runs if (curve := family_curves(run)[name])]
        line = averaged(name, (), curves, hues=(HUES[name],))
        line.x = [step / epoch_steps(runs[0]) for step in line.x]
        lines.append(line)
    return [line for line in lines if line.x]


class DepthOfForgetting(Section):
    """The paper's rule on three responses to each prompt, run by run."""

    place = 20
    heading = "Is forgetting deep or superficial?"
    caption = (
        "R: a refusal, C: a compliance, U: the same in other words, which was unlearned; log-likelihoods in nats, summed over a "
        "response's tokens, mean over prompts. Deep: C ends below R together with U; superficial: only U does; not forgotten: U ends "
        "above R. The margin is R minus C, so above 0 C lies below R; where it is above 0 before unlearning already, the order of the"
        " stages has put it there. C's share is its fall as a part of U's."
    )

    @cached_property
    def found(self) -> list[OrderDepth]:
        """Every order under every objective that was measured."""
        return depths(self.study)

    def draws(self) -> Iterable[str]:
        return [f"{PROBE}/{name}_log_lik" for name in FAMILIES] if depths(self.study) else []

    def blocks(self) -> Iterable[Block]:
        if not self.found:
            return []
        return [depth_table(self.found), File("depth.csv", _by_run(self.found).csv(), "in full, run by run"), *depth_charts(self.study)]

    def verdict(self) -> Verdict | None:
        return Verdict(depth_headline(self.found), as_in_the_paper(self.found), 1, depth_headline(self.found)) if self.found else None

    def sentences(self) -> Iterable[str]:
        return depth_sentences(self.found) if self.found else []

    def summary(self) -> dict[str, Any]:
        return {
            "depth": [
                {
                    "objective": one.objective, "path": list(one.path.stages), "paper": one.expected,
                    "verdicts": [run.kind for run in one.outcomes], "margins": [run.margin for run in one.outcomes],
                }
                for one in self.found
            ]
        }  # fmt: skip


def depth_table(found: Sequence[OrderDepth]) -> Table:
    """A row per order and objective; with several seeds counts, and means with 95% intervals."""
    several = len({one.objective for one in found}) > 1
    columns = [
        Paths("order"), *([Text("objective", heads=True)] if several else []), Text("verdict", rank=0), Text("in the paper"),
        Change("margin", "margin_before", after="margin_after", digits=1), *(Interval(f"fall of {name}", f"fall_{name}", digits=1, rank=2,
        intervals=False) for name in FAMILIES), Interval("C's share", "share_C", digits=2, rank=3, intervals=False),
    ]  # fmt: skip
    note = "Margin: R − C, above 0 where the compliance lies below the refusal. Nats, means over seeds."
    table = Table("depth", columns, title="Deep or superficial forgetting", note=note, on_terminal=True)
    for one in found:
        names = [one.path, *([one.objective] if several else [])]
        margins = one.over_seeds("margin_before"), one.over_seeds("margin")
        table.add(*names, _verdict(one), one.expected, margins, *map(one.over_seeds, (*FAMILIES, "share")))
    return table


def _by_run(found: Sequence[OrderDepth]) -> Table:
    words = map(Text, ("order", "objective", "seed", "verdict", "paper"))
    table = Table("depth_by_run", [*words, *map(Number, ("margin_before", "margin_after", *(f"fall_{name}" for name in FAMILIES)))])
    for one in found:
        for run in one.outcomes:
            numbers = [run.margin_before, run.margin, *(run.falls[name] for name in FAMILIES)]
            table.add(" ".join(one.path.stages), one.objective, run.seed, run.kind, one.expected, *numbers)
    return table


def depth_headline(found: Sequence[OrderDepth]) -> str:
    """Whether forgetting is deep where U was learned first, and only there."""
    early, late = deep_by_start(found)
    agrees = as_in_the_paper(found)
    alike = all(one.count(one.expected).hits == len(one.outcomes) for one in found)
    lead = {None: "No verdict yet", True: "Mostly as in the paper", False: "Not as in the paper"}[agrees]
    lead = "As in the paper" if agrees and alike else lead
    return f"{lead}: forgetting is deep in {_of(early)} that learned U first, and in {_of(late)} that did not."


def depth_sentences(found: Sequence[OrderDepth]) -> list[str]:
    """What supports the headline or speaks against it, every number from the data."""
    early, late = deep_by_start(found)
    whole = whole_seeds(found)
    objectives = list(dict.fromkeys(one.objective for one in found))
    cells = "seed" if len(objectives) == 1 else "seed × objective cell"
    seeds = f"The paper's grouping of all orders appears in {whole.hits} of {whole.n} {cells}{'' if whole.n == 1 else 's'}"
    low, high = whole.interval
    seeds += f" (95% Wilson interval {low:.0%} to {high:.0%})." if whole.n > 1 else "; a single seed is an observation, not a test."
    if not whole.n:
        seeds = "No seed has all orders yet, so that the paper's grouping is not tested."
    listed = [_listed([one for one in found if one.objective == objective]) for objective in objectives]
    if len(objectives) > 1:
        listed = [f"{objective}: {orders}" for objective, orders in zip(objectives, listed, strict=True)]
    before = sum(run.kind == "deep" and run.margin_before > 0 for one in found for run in one.outcomes)
    deep = early.hits + late.hits
    start = f"In {before} of the {deep} deep runs C lay below R before unlearning already." if deep else ""
    return [sentence for sentence in (seeds, *(f"{one[:1].upper()}{one[1:]}." for one in listed), start) if sentence]


def _listed(orders: Sequence[OrderDepth]) -> str:
    counted = {kind: [f"{one.path.label} {_times(one.count(kind))}".strip() for one in orders if one.count(kind).hits] for kind in KINDS}
    return "; ".join(f"{kind}: {', '.join(named)}" for kind, named in counted.items() if named)


def _of(share: Share) -> str:
    return f"{share.hits} of {share.n} run{'' if share.n == 1 else 's'}"


def _verdict(one: OrderDepth) -> str:
    parts = [f"{kind} {_times(one.count(kind))}".strip() for kind in KINDS if one.count(kind).hits]
    return ", ".join(parts)


def _times(share: Share) -> str:
    return "" if share.n == 1 else f"{share.hits}/{share.n}"
