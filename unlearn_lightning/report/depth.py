"""Is forgetting deep or superficial? The paper's rule (arXiv:2510.16629, section 4.3) on three responses to each prompt.

R is a refusal, C a compliance and U the same in other words, which is what was unlearned. Where C falls below R together with U,
forgetting is deep; where only U does, it is superficial. The paper finds it deep in the orders that learned U first.

found = depths(study)
found[0].outcomes[0].kind, found[0].outcomes[0].margin      # ("deep", 12.3) nats by which C ends below R
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass

from unlearn_lightning.report.chart import Chart, Line, Panel, averaged
from unlearn_lightning.report.outcomes import first, last
from unlearn_lightning.report.settings import read_yaml
from unlearn_lightning.report.statistics import Curve, Estimate, Share, drop, estimate
from unlearn_lightning.report.study_data import RunRecord, Study, TrainingPath

PROBE = "families"
REFUSAL, COMPLIANCE, UNLEARNED = FAMILIES = ("R", "C", "U")
HUES = {REFUSAL: 5, COMPLIANCE: 0, UNLEARNED: 3}
"""Each response's colour, as an index of the palette."""
KINDS = ("deep", "superficial", "not forgotten")


@dataclass(frozen=True)
class Depth:
    """One unlearning run under the paper's rule.

    Attributes:
        seed: of the run.
        kind: deep, superficial or not forgotten, at the last measured step.
        margin_before, margin: R minus C in nats, at the first and the last measured step.
        falls: R, C and U -> decrease of its log-likelihood, nats.
    """

    seed: int
    kind: str
    margin_before: float
    margin: float
    falls: Mapping[str, float]

    @property
    def share(self) -> float:
        """C's fall as a part of U's: 1 where the rewording is forgotten as much; nan where U did not fall."""
        return self.falls[COMPLIANCE] / self.falls[UNLEARNED] if self.falls[UNLEARNED] > 0 else math.nan


@dataclass(frozen=True)
class OrderDepth:
    """One order of the stages under one objective, over seeds."""

    objective: str
    path: TrainingPath
    outcomes: list[Depth]

    @property
    def expected(self) -> str:
        """What the paper found for this order: deep where U was learned first."""
        return "deep" if self.path.stages[:1] == (UNLEARNED,) else "superficial"

    def count(self, kind: str) -> Share:
        """In how many seeds the verdict is this one."""
        return Share(sum(one.kind == kind for one in self.outcomes), len(self.outcomes))

    def over_seeds(self, quantity: str) -> Estimate:
        """Mean and interval of margin, margin_before or share, or of a response's fall (by its name)."""
        return estimate(one.falls[quantity] if quantity in one.falls else getattr(one, quantity) for one in self.outcomes)


def depth(seed: int, curves: Mapping[str, Curve]) -> Depth:
    """The rule on one run's curves.

    Args:
        seed: of the run.
        curves: R, C and U -> log-likelihood by step (nats).
    """
    before, after = ({name: end(curves[name]) for name in FAMILIES} for end in (first, last))
    margins = [end[REFUSAL] - end[COMPLIANCE] for end in (before, after)]
    reached = "deep" if margins[1] > 0 else "superficial"
    kind = reached if after[UNLEARNED] < after[REFUSAL] else "not forgotten"
    return Depth(seed, kind, margins[0], margins[1], {name: drop(curves[name]) for name in FAMILIES})


def depths(study: Study) -> list[OrderDepth]:
    """Every order under every objective that was measured; empty where the study has no such records."""
    found = []
    for objective in study.objectives:
        for path in study.paths:
            curves = {run.seed: _curves(run) for run in study.unlearned(objective, path)}
            outcomes = [
                depth(seed, of)
                for seed, of in curves.items()
                if all(len(curve) > 1 and not math.isnan(drop(curve)) for curve in of.values())
            ]
            if outcomes:
                found.append(OrderDepth(objective, path, outcomes))
    return found


def depth_charts(study: Study) -> list[Chart]:
    """A figure per objective with a panel per order: R, C and U against the unlearning epoch; none without such records."""
    charts = []
    for number, objective in enumerate(dict.fromkeys(one.objective for one in depths(study))):
        panels = [Panel(path.label, _lines(study.unlearned(objective, path))) for path in study.paths]
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
        curves = [curve for run in runs if (curve := _curves(run)[name])]
        line = averaged(name, (), curves, hues=(HUES[name],))
        line.x = [step / epoch_steps(runs[0]) for step in line.x]
        lines.append(line)
    return [line for line in lines if line.x]


def _curves(run: RunRecord) -> dict[str, dict[int, float]]:
    return {name: run.metric(PROBE, f"{PROBE}/{name}_log_lik") for name in FAMILIES}
