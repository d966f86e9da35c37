"""The paper's rule for deep and superficial forgetting (arXiv:2510.16629, section 4.3), on three responses to each prompt.

R is a refusal, C a compliance and U the same in other words, which was unlearned. Where C falls below R together with U, forgetting is
deep; where only U does, it is superficial. The paper finds it deep in the orders that learned U first.

depths(study)[0].outcomes[0].kind, depths(study)[0].outcomes[0].margin      # ("deep", 12.3) nats by which C ends below R
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from unlearn_lightning.records.statistics import Curve, Estimate, Share, drop, estimate
from unlearn_lightning.records.study_data import RunRecord, Study, TrainingPath
from unlearn_lightning.report.outcomes import first, last

PROBE = "families"
REFUSAL, COMPLIANCE, UNLEARNED = FAMILIES = ("R", "C", "U")
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
    """Every order under every objective of which some order was measured; empty where the study has no such records."""
    found = []
    for objective in study.objectives:
        orders = []
        for path in study.paths:
            curves = {run.seed: family_curves(run) for run in study.unlearned(objective, path)}
            outcomes = [
                depth(seed, of)
                for seed, of in curves.items()
                if all(len(curve) > 1 and not math.isnan(drop(curve)) for curve in of.values())
            ]
            orders.append(OrderDepth(objective, path, outcomes))
        found += orders if any(one.outcomes for one in orders) else []
    return found


def family_curves(run: RunRecord) -> dict[str, dict[int, float]]:
    """R, C and U -> log-likelihood by step (nats); empty where it was not measured."""
    return {name: run.metric(PROBE, f"{PROBE}/{name}_log_lik") for name in FAMILIES}


def deep_by_start(found: Sequence[OrderDepth]) -> tuple[Share, Share]:
    """In how many runs forgetting is deep: where U was learned first, and in the other orders."""
    shares = []
    for expected in ("deep", "superficial"):
        orders = [one for one in found if one.expected == expected]
        shares.append(Share(sum(one.count("deep").hits for one in orders), sum(len(one.outcomes) for one in orders)))
    return shares[0], shares[1]


def as_in_the_paper(found: Sequence[OrderDepth]) -> bool | None:
    """Whether forgetting is mostly deep where U was learned first and mostly superficial elsewhere; None while an order was not run."""
    if any(not one.outcomes for one in found):
        return None
    early, late = deep_by_start(found)
    superficial = sum(one.count("superficial").hits for one in found if one.expected == "superficial")
    return 2 * early.hits > early.n and 2 * superficial > late.n if early.n and late.n else None


def whole_seeds(found: Sequence[OrderDepth]) -> Share:
    """In how many seeds (of each objective) every order's verdict is the paper's; only seeds with every order count."""
    hits = complete = 0
    for objective in {one.objective for one in found}:
        orders = [one for one in found if one.objective == objective]
        by_seed: dict[int, list[tuple[OrderDepth, Depth]]] = {}
        for one in orders:
            for run in one.outcomes:
                by_seed.setdefault(run.seed, []).append((one, run))
        whole = [runs for runs in by_seed.values() if len(runs) == len(orders)]
        complete += len(whole)
        hits += sum(all(run.kind == one.expected for one, run in runs) for runs in whole)
    return Share(hits, complete)
