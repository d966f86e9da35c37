"""The report's tables: made once as text cells, written as Markdown, HTML or to the terminal; numbers in full go to CSV."""

import csv
import html
import io
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import combinations

from rich.console import Console

from unlearn_lightning.report.charts import pair_label
from unlearn_lightning.report.distances import Distances
from unlearn_lightning.report.matched import MatchedRow
from unlearn_lightning.report.outcomes import MEASURES, OutcomeRow
from unlearn_lightning.report.statistics import Estimate, estimate, growth_rate
from unlearn_lightning.report.study_data import Study
from unlearn_lightning.report.terminal import Column, TerminalRow, TerminalTable

SLOWEST = "◂ lowest forget score"


@dataclass
class Table:
    """Header and text cells. `paths` colours a row's first cell by its path(s) on the page; `marked` rows stand out."""

    header: list[str]
    rows: list[list[str]]
    marked: set[int] = field(default_factory=set)
    paths: list[tuple[int, ...]] = field(default_factory=list)
    first_number: int = 1
    """The column from which cells are numbers, set flush right."""

    def csv(self) -> str:
        """The cells with an interval taken apart into columns of their own, signs in ASCII; empty for a dash."""
        wide = [any(" ± " in row[column] for row in self.rows) for column in range(len(self.header))]
        out = io.StringIO()
        writer = csv.writer(out, lineterminator="\n")
        writer.writerow([name for column, one in enumerate(self.header) for name in ([one, f"{one} ci95"] if wide[column] else [one])])
        for row in self.rows:
            cells = []
            for column, cell in enumerate(row):
                mean, _, interval = (_ascii(cell) if column >= self.first_number else cell).partition(" ± ")
                cells += [mean, interval] if wide[column] else [mean]
            writer.writerow(cells)
        return out.getvalue()

    def markdown(self) -> str:
        """Renders the table in Markdown; columns of numbers are aligned to the right."""
        rule = ["---" if column < self.first_number else "---:" for column in range(len(self.header))]
        lines = [self.header, rule, *self.rows]
        return "".join("| " + " | ".join(cell.replace("|", "\\|").replace("\n", " ") for cell in line) + " |\n" for line in lines)

    def html(self) -> str:
        """The table as HTML inside a box that scrolls sideways on a narrow screen. Every cell is escaped."""

        def cells(tag: str, line: Sequence[str], dots: str = "") -> str:
            out = []
            for column, cell in enumerate(line):
                number = ' class="n"' if column >= self.first_number else ""
                out.append(f"<{tag}{number}>{dots if column == 0 else ''}{html.escape(cell)}</{tag}>")
            return "".join(out)

        kept = ' class="kept"' if self.paths else ""  # the first column stays in view while the others scroll
        body = []
        for index, row in enumerate(self.rows):
            dots = "".join(f'<i class="dot c{path % 8}"></i>' for path in (self.paths[index] if self.paths else ()))
            body.append(f"<tr{' class=marked' if index in self.marked else ''}>{cells('td', row, dots)}</tr>")
        head = f"<thead><tr>{cells('th', self.header)}</tr></thead>"
        return f'<div class="scroll"><table{kept}>{head}<tbody>{"".join(body)}</tbody></table></div>'


def change(before: Estimate, after: Estimate, digits: int = 2, intervals: bool = False) -> str:
    """Writes `0.73 → 0.70`, or with intervals `0.73 ± 0.06 → 0.70 ± 0.11`.

    Args:
        before: what was measured first.
        after: what was measured last.
        digits: behind the point; none in a row with intervals that reaches 100, whose intervals are wider than these.
        intervals: writes the half widths of the 95% confidence intervals, too, where they are known.
    """
    if not intervals:
        return f"{_mean(before, digits)} → {_mean(after, digits)}"
    known = not math.isnan(before.half_width) or not math.isnan(after.half_width)
    digits = 0 if known and max(abs(before.mean), abs(after.mean)) >= 100 else digits
    return f"{before.text(digits)} → {after.text(digits)}"


def closing_table(rows: Sequence[OutcomeRow], retain_title: str = "TOFU") -> Table:
    """One row per objective and path; with several seeds mean ± half width of the 95% confidence interval."""
    header = ["path", "objective", "forget score", "label drop", f"{retain_title} utility", "math accuracy", "its change",
              "distance to retrained", "label margin before", ""]  # fmt: skip
    table = Table(header, [], first_number=2)
    for index, row in enumerate(rows):
        value = row.values
        table.rows.append([
            row.path.label, row.objective, value["forget_score"].text(), value["label_drop"].text(), value["utility"].text(),
            change(value["accuracy_before"], value["accuracy_after"], intervals=True), value["accuracy_change"].text(signed=True),
            change(value["distance_before"], value["distance_after"], 1, intervals=True), value["margin_before"].text(1),
            SLOWEST if row.slowest else "",
        ])  # fmt: skip
        table.paths.append((row.path.index,))
        if row.slowest:
            table.marked.add(index)
    return table


def closing_csv(rows: Sequence[OutcomeRow]) -> str:
    """The closing table with unrounded numbers: each measure's mean, half width of the 95% interval, and seeds measured."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    columns = [f"{measure}{suffix}" for measure in MEASURES for suffix in ("", "_ci95", "_seeds")]
    writer.writerow(["p", "label", "path", "objective", "seeds", *columns, "slowest"])
    for row in rows:
        filled = [number for measure in MEASURES for number in numbers(row.values[measure])]
        writer.writerow([row.path.p, row.path.label, " ".join(row.path.stages), row.objective, row.seeds, *filled, int(row.slowest)])
    return out.getvalue()


def print_closing_table(console: Console, rows: Sequence[OutcomeRow], title: str, retain_title: str) -> None:
    """The closing table on a terminal, one block per objective, in as many columns as fit."""
    columns = (
        Column("path", 0), Column("forget\nscore", 0), Column("label\ndrop"), Column(f"{retain_title}\nutility", 0),
        Column("math acc.\nin → out", 2), Column("\nchange"), Column("dist.² to re-\ntrained, in → out"), Column("margin\nbefore", 3),
    )  # fmt: skip
    interval = " Mean ± half width of the 95% confidence interval over seeds." if any(row.seeds > 1 for row in rows) else ""
    lines: list[TerminalRow] = []
    for index, row in enumerate(rows):
        if index == 0 or rows[index - 1].objective != row.objective:
            lines.append(TerminalRow([row.objective], "bold"))
        value = row.values
        cells = [
            f" {row.path.label}{' ◂' if row.slowest else ''}",
            *(value[measure].text() for measure in ("forget_score", "label_drop", "utility")),
            change(value["accuracy_before"], value["accuracy_after"]), value["accuracy_change"].text(signed=True),
            change(value["distance_before"], value["distance_after"], 1), _mean(value["margin_before"], 1),
        ]  # fmt: skip
        lines.append(TerminalRow(cells, "bold" if row.slowest else ""))
    console.print(TerminalTable(columns, lines, title, f"Nats, squared nats.{interval} ◂ lowest forget score."))


def matched_table(rows: Sequence[MatchedRow], retain_title: str = "TOFU") -> Table:
    """Utility and accuracy of each path at the same forget score."""
    header = ["path", "objective", "forget score", "reached at step", f"{retain_title} utility", "math accuracy change"]
    table = Table(header, [], first_number=2, paths=[(row.path.index,) for row in rows])
    for row in rows:
        table.rows.append(
            [row.path.label, row.objective, row.score.text(), row.step.text(1), row.utility.text(3), row.accuracy_change.text(signed=True)]
        )
    return table


def growth_table(study: Study, distances: Distances) -> Table:
    """Growth rate of log d per step, per objective: of each path's distance to the retrained model, then between every two paths.

    One step multiplies d by exp(rate).
    """
    table = Table(["paths", *study.objectives], [])
    for path in study.paths:
        curves = [[distances.to_retrained(run) for run in study.unlearned(objective, path)] for objective in study.objectives]
        rates = [estimate(map(growth_rate, of)) for of in curves]
        if any(rate.n for rate in rates):
            table.rows.append([f"{path.label} | retrained model", *(rate.text(3, signed=True) for rate in rates)])
            table.paths.append((path.index,))
    for first, second in combinations(study.paths, 2):
        rates = [estimate(map(growth_rate, distances.between_paths(objective, first, second))) for objective in study.objectives]
        if any(rate.n for rate in rates):
            table.rows.append([pair_label(first, second), *(rate.text(3, signed=True) for rate in rates)])
            table.paths.append((first.index, second.index))
    return table


def paper_table(rows: Sequence[OutcomeRow], study: Study) -> str:
    """Table 1 of the paper as HTML: a row per position of the forget stage, per objective its three scores; lowest forget score marked."""
    columns = (("forget_score", "forget ↑"), ("utility", f"{study.retain_title} ↑"), ("accuracy_change", "math ↑"))
    groups = "".join(f'<th colspan="3" class="group">{html.escape(objective)}</th>' for objective in study.objectives)
    names = "".join(f'<th class="n">{html.escape(name)}</th>' for _ in study.objectives for _, name in columns)
    body = []
    for path in study.paths:
        cells = []
        for objective in study.objectives:
            row = next((row for row in rows if row.path == path and row.objective == objective), None)
            for measure, _ in columns:
                text = row.values[measure].text(signed=measure == "accuracy_change") if row else "–"
                mean, _, interval = text.partition(" ± ")
                low = row is not None and row.slowest and measure == "forget_score"
                cells.append(
                    f'<td class="n{" low" if low else ""}"><span>{mean}</span>{f"<small>± {interval}</small>" if interval else ""}</td>'
                )
        name = f'<i class="dot c{path.index % 8}"></i>{html.escape(path.label)} <small>{html.escape(path.arrow)}</small>'
        body.append(f'<tr><td class="path">{name}</td>{"".join(cells)}</tr>')
    return (
        f'<div class="scroll"><table class="paper kept"><thead><tr><th></th>{groups}</tr><tr><th>path</th>{names}</tr></thead>'
        f"<tbody>{''.join(body)}</tbody></table></div>"
    )


def numbers(value: Estimate) -> list[str]:
    """Mean, half width and count as CSV cells, unrounded; empty where there is no number."""
    return ["" if math.isnan(number) else repr(number) for number in (value.mean, value.half_width)] + [str(value.n)]


def _ascii(cell: str) -> str:
    return "" if cell == "–" else cell.replace("−", "-")


def _mean(value: Estimate, digits: int) -> str:
    return Estimate(value.mean, math.nan, value.n).text(digits)
