"""The comparison of two studies as tables: in full for Markdown, CSV and W&B, compact for the page and the terminal."""

import csv
import html
import io

from rich.console import Console

from unlearn_lightning.report.comparison import Comparison, Pair
from unlearn_lightning.report.outcomes import MEASURES
from unlearn_lightning.report.tables import Table, numbers
from unlearn_lightning.report.terminal import Column, TerminalRow, TerminalTable

DIGITS = {"distance_before": 1, "distance_after": 1, "margin_before": 1}
SIGNED = ("accuracy_change",)
ON_TERMINAL = {
    "forget_score": "forget\nscore", "label_drop": "label\ndrop", "utility": "\nutility", "accuracy_change": "math acc.\nchange",
    "distance_after": "dist.² to\nretrained",
}  # fmt: skip


def cells(pair: Pair, measure: str) -> tuple[str, str, str]:
    """The measure in this study, in the other, and the difference."""
    digits = DIGITS.get(measure, 2)
    mine, theirs = (value.text(digits, measure in SIGNED) for value in pair.values(measure))
    return mine, theirs, pair.difference(measure).text(digits, signed=True)


def comparison_table(found: Comparison) -> Table:
    """One row per path, objective and measure: both values and the difference, this study minus the other."""
    table = Table(["path", "objective", "measure", *found.names, "difference"], [], first_number=3)
    for pair in found.pairs:
        for measure in found.measures or MEASURES:
            mine, theirs, difference = cells(pair, measure)
            table.rows.append([pair.path.label, pair.objective, MEASURES[measure], mine, theirs, only_in(pair, found) or difference])
    return table


def comparison_markdown(found: Comparison) -> str:
    """What table.md says about the comparison."""
    parts = [f"## {found.names[0]} against {found.names[1]}\n", _caption(found) + "\n", comparison_table(found).markdown()]
    if found.settings.rows:
        parts += ["### Settings in which the studies differ\n", found.settings.markdown()]
    return "\n".join(["", *parts])


def comparison_csv(found: Comparison) -> str:
    """The closing table's columns in both studies and their differences, unrounded; a side that has no such row is empty."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    sides = ("", "against_", "difference_")
    columns = [f"{side}{measure}{suffix}" for side in sides for measure in MEASURES for suffix in ("", "_ci95", "_seeds")]
    writer.writerow(["p", "label", "path", "objective", "seeds", "against_seeds", *columns, "slowest"])
    for pair in found.pairs:
        estimates = [[*pair.values(measure), pair.difference(measure)] for measure in MEASURES]
        filled = [number for side in range(3) for values in estimates for number in numbers(values[side])]
        seeds = [row.seeds if row else 0 for row in (pair.mine, pair.theirs)]
        slowest = int(pair.mine is not None and pair.mine.slowest)
        writer.writerow([pair.path.p, pair.path.label, " ".join(pair.path.stages), pair.objective, *seeds, *filled, slowest])
    return out.getvalue()


def comparison_html(found: Comparison) -> str:
    """One row per path and objective; a cell has the difference above the two values."""
    measures = [measure for measure in found.measures if measure != "accuracy_before"] or list(ON_TERMINAL)
    heads = "".join(f'<th class="n">{html.escape(MEASURES[measure])}</th>' for measure in measures)
    body = []
    for pair in found.pairs:
        line = []
        for measure in measures:
            mine, theirs, difference = (html.escape(text) for text in cells(pair, measure))
            mine, theirs = (text.partition(" ± ")[0] for text in (mine, theirs))
            if only_in(pair, found):
                line.append(f'<td class="n"><small>{theirs if pair.mine is None else mine}</small></td>')
            else:
                clear = " clear" if pair.differs(measure) else ""
                line.append(f'<td class="n{clear}"><span>{difference}</span><small>{mine} vs {theirs}</small></td>')
        only = f"<small>{html.escape(only_in(pair, found))}</small>"
        dot = f'<i class="dot c{pair.path.index % 8}"></i>' if pair.mine else '<i class="dot"></i>'
        name = html.escape(f"{pair.path.label} {pair.objective}")
        body.append(f'<tr><td class="path">{dot}{name}{only}</td>{"".join(line)}</tr>')
    notes = f'<p class="caption">{html.escape(" ".join(found.notes))}</p>' if found.notes else ""
    head = f"<thead><tr><th>path</th>{heads}</tr></thead>"
    table = f'<div class="scroll"><table class="compared kept">{head}<tbody>{"".join(body)}</tbody></table></div>'
    settings = f"<h3>Settings in which the studies differ</h3>{found.settings.html()}" if found.settings.rows else ""
    return notes + table + settings


def print_comparison(console: Console, found: Comparison) -> None:
    """The main measures on a terminal, three lines per row: this study, the other, the difference, in as many columns as fit."""
    columns = [Column("", 0), *(Column(title, rank) for rank, title in enumerate(ON_TERMINAL.values()))]
    rows: list[TerminalRow] = []
    for index, pair in enumerate(found.pairs):
        if index == 0 or found.pairs[index - 1].objective != pair.objective:
            rows.append(TerminalRow([pair.objective], "bold"))
        rows.append(TerminalRow([f" {pair.path.label}"]))
        measured = [cells(pair, measure) for measure in ON_TERMINAL]
        present = (pair.mine is not None, pair.theirs is not None, pair.mine is not None and pair.theirs is not None)
        for side, name in enumerate((*found.names, "difference")):
            if present[side]:
                rows.append(TerminalRow([f"  {name}", *(column[side] for column in measured)], "bold" if side == 2 else ""))
    console.print(TerminalTable(columns, rows, f"{found.names[0]} against {found.names[1]}", _caption(found)))
    settings = found.settings.rows
    for row in settings[:8]:
        console.print(f"{row[0]}: {row[1]} | {row[2]}", highlight=False, markup=False)
    if len(settings) > 8:
        console.print(f"and {len(settings) - 8} further settings differ (table.md lists them)")


def only_in(pair: Pair, found: Comparison) -> str:
    """`only in demo` for a row that one study lacks, otherwise nothing."""
    if pair.mine is None:
        return f"only in {found.names[1]}"
    return "" if pair.theirs else f"only in {found.names[0]}"


def _caption(found: Comparison) -> str:
    several = any(pair.difference(measure).half_width >= 0 for pair in found.pairs for measure in found.measures)
    interval = " ± is the half width of Welch's 95% confidence interval." if several else ""
    return " ".join([f"Differences are {found.names[0]} minus {found.names[1]}.{interval}", *found.notes])
