"""Deep or superficial forgetting: rows of a study's records, and docs/superficial.md's table of these rows alone."""

from collections.abc import Sequence
from pathlib import Path

from scripts.study_results.measured import Row, made_with
from scripts.study_results.twins import TWIN, described, own, spread, twins_of
from unlearn_lightning.records.study_data import TrainingPath, load_study
from unlearn_lightning.report.depths import FAMILIES, PROBE, OrderDepth, depth
from unlearn_lightning.report.sections.depth import depth_headline, depth_sentences, depth_table

COMPARED_DEPTHS = FAMILIES
"""The responses whose log-likelihoods are compared with a twin's."""


def measured_depth(folder: Path) -> tuple[dict[str, str], list[Row]]:
    """What made the numbers, and a row per seed, order, objective and response: log-likelihoods in nats, summed over its tokens."""
    study = load_study(folder)
    rows = []
    for run in study.finished("unlearn"):
        for name in FAMILIES:
            if curve := run.metric(PROBE, f"{PROBE}/{name}_log_lik"):
                rows.append(Row(run.seed, study.path_of(run).label, run.objective, name, curve[min(curve)], curve[max(curve)]))
    return {**made_with(folder), "orders": " ".join(path.label for path in study.paths)}, rows


def orders(made: dict[str, str], rows: Sequence[Row]) -> list[OrderDepth]:
    """Every order under every objective, by the paper's rule; an order's name is its stages' letters."""
    found = []
    for objective in dict.fromkeys(row.objective for row in rows):
        for index, label in enumerate(made["orders"].split()):
            mine = [row for row in rows if (row.objective, row.path) == (objective, label)]
            seeds = sorted({row.seed for row in mine})
            outcomes = [depth(seed, {row.quantity: {0: row.before, 1: row.after} for row in mine if row.seed == seed}) for seed in seeds]
            p = label.index("U") + 1
            found.append(OrderDepth(objective, TrainingPath(index, p, tuple(label), label, len(label) - p), outcomes))
    return found


def depth_texts(made: dict[str, str], rows: Sequence[Row]) -> list[str]:
    """The report's headline, sentences and table, of the CSV alone; and what a twin has of the same orders."""
    mine = own(rows)
    found = orders(made, mine)
    texts = [f"**{depth_headline(found)}** {' '.join(depth_sentences(found))}\n", depth_table(found).markdown()]
    return [*texts, _twin_text(made, rows)] if twins_of(rows) else texts


def _twin_text(made: dict[str, str], rows: Sequence[Row]) -> str:
    theirs = [row._replace(quantity=row.quantity.removeprefix(TWIN)) for row in twins_of(rows)]
    mine, twins = (
        {(one.objective, one.path.label, outcome.seed): outcome.kind for one in orders(made, some) for outcome in one.outcomes}
        for some in ([row for row in own(rows) if row.seed in {row.seed for row in theirs}], theirs)
    )
    same = [kind == twins[place] for place, kind in mine.items() if place in twins]
    spreads = (spread(rows, objective, name) for objective in {row.objective for row in theirs} for name in FAMILIES)
    largest = [one.largest for one in spreads if one]
    return (
        f"{described(rows, made['twin'])} The log-likelihoods after unlearning differ by {max(largest, default=0.0):.2g} nats at most, and "
        f"{sum(same)} of {len(same)} runs are called the same.\n"
    )
