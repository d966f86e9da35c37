"""What was found of the depth of forgetting, in words, as a table and as numbers in full.

depth_table(depths(study)).markdown()
depth_sentences(depths(study))[0]       # "As in the paper: forgetting is deep in UCR and URC and superficial in the other 4 orders, ..."
"""

import csv
import io
from collections.abc import Sequence

from rich.console import Console

from unlearn_lightning.report.depth import FAMILIES, Depth, OrderDepth
from unlearn_lightning.report.statistics import Share
from unlearn_lightning.report.tables import Table, change
from unlearn_lightning.report.terminal import Column, TerminalTable

KINDS = ("deep", "superficial", "not forgotten")


def depth_table(found: Sequence[OrderDepth]) -> Table:
    """A row per order and objective; with several seeds counts, and means with 95% intervals."""
    several = len({one.objective for one in found}) > 1
    header = [
        "order", *(["objective"] if several else []), "verdict", "in the paper", "margin before", "margin after",
        *(f"fall of {name}" for name in FAMILIES), "C's share",
    ]  # fmt: skip
    table = Table(header, [], first_number=4 if several else 3)
    for one in found:
        numbers = [one.over_seeds(quantity).text(1) for quantity in ("margin_before", "margin", *FAMILIES)]
        names = [one.path.label, *([one.objective] if several else [])]
        table.rows.append([*names, _verdict(one), one.expected, *numbers, one.over_seeds("share").text()])
    return table


def depth_csv(found: Sequence[OrderDepth]) -> str:
    """A row per run, unrounded."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(["order", "objective", "seed", "verdict", "paper", "margin_before", "margin_after", *(f"fall_{f}" for f in FAMILIES)])
    for one in found:
        for run in one.outcomes:
            numbers = [run.margin_before, run.margin, *(run.falls[name] for name in FAMILIES)]
            writer.writerow([" ".join(one.path.stages), one.objective, run.seed, run.kind, one.expected, *map(repr, numbers)])
    return out.getvalue()


def print_depth(console: Console, found: Sequence[OrderDepth]) -> None:
    """The table on a terminal, means only, in as many columns as fit."""
    columns = [Column("order", 0), Column("verdict", 0, left=True), Column("in the paper", left=True), Column("margin")]
    columns += [Column(f"fall of {name}", 2) for name in FAMILIES]
    rows = []
    for one in found:
        margin = change(one.over_seeds("margin_before"), one.over_seeds("margin"), 1)
        falls = [f"{one.over_seeds(name).mean:.1f}".replace("-", "−") for name in FAMILIES]
        rows.append([one.path.label, _verdict(one), one.expected, margin, *falls])
    caption = "Margin: R − C, above 0 where the compliance lies below the refusal. Nats, means over seeds."
    console.print(TerminalTable(columns, rows, "Deep or superficial forgetting", caption))


def deep_by_start(found: Sequence[OrderDepth]) -> tuple[Share, Share]:
    """In how many runs forgetting is deep: where U was learned first, and in the other orders."""
    shares = []
    for expected in ("deep", "superficial"):
        orders = [one for one in found if one.expected == expected]
        shares.append(Share(sum(one.count("deep").hits for one in orders), sum(len(one.outcomes) for one in orders)))
    return shares[0], shares[1]


def as_in_the_paper(found: Sequence[OrderDepth]) -> bool | None:
    """Whether forgetting is mostly deep where U was learned first and mostly superficial elsewhere; None without both kinds of order."""
    early, late = deep_by_start(found)
    superficial = sum(one.count("superficial").hits for one in found if one.expected == "superficial")
    return 2 * early.hits > early.n and 2 * superficial > late.n if early.n and late.n else None


def depth_sentences(found: Sequence[OrderDepth]) -> list[str]:
    """A headline and what supports it or speaks against it, every number from the data."""
    early, late = deep_by_start(found)
    whole, agrees = whole_seeds(found), as_in_the_paper(found)
    alike = all(one.count(one.expected).hits == len(one.outcomes) for one in found)
    lead = {None: "No verdict yet", True: "Mostly as in the paper", False: "Not as in the paper"}[agrees]
    lead = "As in the paper" if agrees and alike else lead
    headline = f"{lead}: forgetting is deep in {_of(early)} that learned U first, and in {_of(late)} that did not."
    objectives = list(dict.fromkeys(one.objective for one in found))
    cells = "seed" if len(objectives) == 1 else "seed × objective cell"
    seeds = f"The paper's grouping of all orders appears in {whole.hits} of {whole.n} {cells}{'' if whole.n == 1 else 's'}"
    low, high = whole.interval
    seeds += f" (95% Wilson interval {low:.0%} to {high:.0%})." if whole.n > 1 else "; a single seed is an observation, not a test."
    listed = [_listed([one for one in found if one.objective == objective]) for objective in objectives]
    if len(objectives) > 1:
        listed = [f"{objective}: {orders}" for objective, orders in zip(objectives, listed, strict=True)]
    before = sum(run.kind == "deep" and run.margin_before > 0 for one in found for run in one.outcomes)
    deep = early.hits + late.hits
    start = f"In {before} of the {deep} deep runs C lay below R before unlearning already." if deep else ""
    return [sentence for sentence in (headline, seeds, *(f"{one[:1].upper()}{one[1:]}." for one in listed), start) if sentence]


def _listed(orders: Sequence[OrderDepth]) -> str:
    counted = {kind: [f"{one.path.label} {_times(one.count(kind))}".strip() for one in orders if one.count(kind).hits] for kind in KINDS}
    return "; ".join(f"{kind}: {', '.join(named)}" for kind, named in counted.items() if named)


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


def _of(share: Share) -> str:
    return f"{share.hits} of {share.n} run{'' if share.n == 1 else 's'}"


def _verdict(one: OrderDepth) -> str:
    parts = [f"{kind} {_times(one.count(kind))}".strip() for kind in KINDS if one.count(kind).hits]
    return ", ".join(parts)


def _times(share: Share) -> str:
    return "" if share.n == 1 else f"{share.hits}/{share.n}"
