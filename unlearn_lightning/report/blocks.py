"""What a section is made of, in reading order: tables, figures (`chart.Chart`), sentences, files.

table = Table("growth", [Paths(), Interval("rate", digits=3)])
table.add(path, estimate([0.2, 0.3]))
table.csv(), table.markdown(), console.print(table.terminal())
"""

import csv
import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, ClassVar

from unlearn_lightning.cli.terminal import Column as TerminalColumn
from unlearn_lightning.cli.terminal import TerminalRow, TerminalTable, printable
from unlearn_lightning.records.texts import csv_cell
from unlearn_lightning.report.columns import Column, Value

ABSENT = "– →"
"""What a cell says where nothing was measured."""


class Block:
    """One piece of a section. `template` is the file of assets/ that shows it on the page."""

    template: ClassVar[str]

    @property
    def on_page(self) -> bool:
        """Whether the page shows it."""
        return True

    def __bool__(self) -> bool:
        """Whether there is anything to show; a section leaves empty blocks out."""
        return True

    def readable(self) -> "Block":
        """The block, or what a reader can take in of it."""
        return self

    def in_markdown(self) -> list[str]:
        """Its paragraphs in table.md; none for what only the page shows."""
        return []


@dataclass(frozen=True)
class Row:
    """Cells by column; `low` are the indices of those that stand out in a row, and a `marked` row stands out as a whole."""

    cells: Sequence[Any]
    marked: bool = False
    low: frozenset[int] = frozenset()


@dataclass
class Table(Block):
    """Typed columns and the cells below them, which keep what was computed; each place rounds for itself.

    Attributes:
        name: of its files in tables/ and wherever the report is logged.
        columns, rows: what it holds.
        heading, caption: on the page and in Markdown; empty where the section's own say it.
        title, note: above and below it on a terminal; for no title, the heading.
        folded: what the page shows until the reader opens the table, such as `187 runs`; empty for one that is open.
        stacked: on the page the small print of a cell stands below it.
        hidden: it is not on the page.
        in_files, on_terminal: where else it is shown.
    """

    name: str
    columns: Sequence[Column]
    rows: list[Row] = field(default_factory=list)
    heading: str = ""
    caption: str = ""
    title: str = ""
    note: str = ""
    folded: str = ""
    stacked: bool = False
    hidden: bool = False
    in_files: bool = True
    on_terminal: bool = False
    template: ClassVar[str] = "table.html"
    most_on_page: ClassVar[int] = 200

    def __bool__(self) -> bool:
        """Whether it has rows."""
        return bool(self.rows)

    @property
    def on_page(self) -> bool:
        """Whether it is not hidden there."""
        return not self.hidden

    def in_markdown(self) -> list[str]:
        """Heading, caption and rows."""
        heading = f"### {printable(self.heading)}" if self.heading else ""
        return [heading, printable(self.caption), self.markdown().rstrip()] if self.in_files else []

    def add(self, *cells: Any, marked: bool = False, low: Sequence[int] = ()) -> None:
        """Adds a row of one cell per column."""
        if len(cells) != len(self.columns):
            raise ValueError(f"The table {self.name} has {len(self.columns)} columns, got {len(cells)} cells.")
        self.rows.append(Row(cells, marked, frozenset(low)))
        self.__dict__.pop("shown", None)  # It was computed of fewer rows.

    @property
    def kept(self) -> bool:
        """Whether the first column stays in view while the others scroll sideways."""
        return self.rows != [] and bool(self.columns[0].hues(self.rows[0].cells[0]))

    @cached_property
    def shown(self) -> list[int]:
        """The columns that people see: columns of numbers without a number in any row are left out, and stay in CSV."""
        told = [any(column.text(row.cells[index]).strip(ABSENT) for row in self.rows) for index, column in enumerate(self.columns)]
        return [i for i, column in enumerate(self.columns) if not column.in_full and (told[i] or not column.right or not self.rows)]

    def header(self) -> list[str]:
        """The names of the plain values in CSV and logged tables."""
        return [name for column in self.columns for name in column.fields()]

    def plain(self) -> list[list[Value]]:
        """The rows as plain values, numbers in full, null where nothing was measured."""
        return [[value for column, cell in zip(self.columns, row.cells, strict=True) for value in column.values(cell)] for row in self.rows]

    def csv(self) -> str:
        """CSV with one number a column; a text that a spreadsheet would compute has an apostrophe before it."""
        out = io.StringIO()
        writer = csv.writer(out, lineterminator="\n")
        writer.writerow(map(_in_csv, self.header()))
        writer.writerows(map(_in_csv, row) for row in self.plain())
        return out.getvalue()

    def markdown(self) -> str:
        """The table in Markdown; numbers are flush right."""
        columns = [self.columns[index] for index in self.shown]
        titles = [f"{column.group} {column.heading}".strip() for column in columns]
        lines = [titles, ["---:" if column.right else "---" for column in columns]]
        return "".join("| " + " | ".join(map(_in_markdown, line)) + " |\n" for line in [*lines, *self.texts()])

    def texts(self) -> list[list[str]]:
        """The rows as people read them."""
        return [[self.columns[index].text(row.cells[index]) for index in self.shown] for row in self.rows]

    def groups(self) -> list[tuple[str, int]]:
        """The headings over columns, each with the number of columns below it; empty without any."""
        found: list[tuple[str, int]] = []
        for index in self.shown:
            name = self.columns[index].group
            same = bool(found) and found[-1][0] == name
            found[-1:] = [(name, found[-1][1] + 1)] if same else [*found[-1:], (name, 1)]
        return found if any(name for name, _ in found) else []

    def terminal(self) -> TerminalTable:
        """The table in as many columns as fit a terminal."""
        return TerminalTable(
            self._terminal_columns(), list(self._terminal_rows()), printable(self.title or self.heading), printable(self.note)
        )

    def _on_terminal(self) -> list[int]:
        return [i for i in self.shown if self.columns[i].rank is not None and not self.columns[i].heads]

    def _terminal_columns(self) -> list[TerminalColumn]:
        return [
            TerminalColumn(column.short or printable(column.heading), column.rank or 0, left=not column.right)
            for column in (self.columns[index] for index in self._on_terminal())
        ]

    def _terminal_rows(self) -> Iterator[TerminalRow]:
        heads, before = [i for i in self.shown if self.columns[i].heads], None
        for row in self.rows:
            head = " · ".join(self.columns[i].brief(row.cells[i]) for i in heads)
            if heads and head != before:
                yield TerminalRow([printable(head)], "bold")
            before = head
            cells = [printable(self.columns[i].brief(row.cells[i])) for i in self._on_terminal()]
            yield TerminalRow([f" {cells[0]}" if heads else cells[0], *cells[1:]], "bold" if row.marked else "")


@dataclass(frozen=True)
class Prose(Block):
    """A sentence or more. `warns`: it is printed on the terminal, too."""

    text: str
    warns: bool = False
    template: ClassVar[str] = "prose.html"

    def __bool__(self) -> bool:
        """Whether it says anything."""
        return bool(self.text)

    def in_markdown(self) -> list[str]:
        """The text."""
        return [_in_markdown(self.text)]


@dataclass(frozen=True)
class File(Block):
    """A file beside the page, with a link to it."""

    name: str
    content: str
    about: str = ""
    template: ClassVar[str] = "file.html"

    @property
    def on_page(self) -> bool:
        """Whether the page says what it is about, and so has a link."""
        return bool(self.about)


@dataclass(frozen=True)
class Explorer(Block):
    """Examples that the reader chooses between; page.js shows them from the page's data."""

    data: dict[str, Any]
    template: ClassVar[str] = "explorer.html"

    def __bool__(self) -> bool:
        """Whether there is an example."""
        return bool(self.data["views"])


def _in_csv(value: Value) -> Value:
    if isinstance(value, str):
        return csv_cell(value)
    return "" if value is None else repr(value)


def _in_markdown(text: str) -> str:
    return printable(text).replace("|", "\\|").replace("<", "&lt;")
