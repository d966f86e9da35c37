"""Tables on a terminal, which choose their columns by its width: no cell is broken, and what is left out is named below.

console.print(TerminalTable([Column("run"), Column("steps"), Column("disk", rank=2)], [["seed1/base", "400", "1.7 MB"]]))
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, JustifyMethod, RenderableType, RenderResult
from rich.measure import Measurement
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

GAP = 2
ASCII = (("→", "->"), ("±", "+-"), ("◂", "<"), ("–", "-"), ("²", "^2"), ("·", "-"), ("−", "-"), ("…", ".."))


JOINERS = "\u200c\u200d"
"""They shape letters and emoji, and steer nothing."""


@dataclass(frozen=True)
class Column:
    """A column. The first of a table says which row it is.

    Attributes:
        title: of one or more lines.
        rank: where the width does not do, columns of the highest rank leave first, and of equal ones the last; those of rank 0 stay.
        left: whether its cells are words, flush left.
        style: of its cells.
    """

    title: str
    rank: int = 1
    left: bool = False
    style: str = ""

    @property
    def name(self) -> str:
        """The title in one line."""
        return " ".join(self.title.replace("-\n", "").replace("/\n", "/").split())


@dataclass(frozen=True)
class TerminalRow:
    """Cells in one style; a single cell is a heading of what follows, as wide as the terminal."""

    cells: Sequence[RenderableType]
    style: str = ""


@dataclass
class TerminalTable:
    """A table in as many columns as fit.

    Where not even the columns of rank 0 fit beside the first one, each row takes two lines, the first cell above the others.

    Attributes:
        columns: all there are.
        rows: of cells, none of which is ever broken; numbers with ± lose the spaces around it.
        title, caption: above and below; empty for none.
        stacked: whether rows may take two lines; otherwise the first cell is shortened with an ellipsis.
    """

    columns: Sequence[Column]
    rows: Sequence[TerminalRow | Sequence[RenderableType]]
    title: str = ""
    caption: str = ""
    stacked: bool = True
    _rows: list[TerminalRow] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        self._rows = [row if isinstance(row, TerminalRow) else TerminalRow(row) for row in self.rows]

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        width = options.max_width
        titles = [plain(column.title, console) for column in self.columns]
        rows = [TerminalRow([_cell(cell, console) for cell in row.cells], row.style) for row in self._rows]
        body = [row for row in rows if len(row.cells) > 1]
        widths = [
            max([*map(cell_len, title.splitlines()), 1, *(_width(row.cells[index], console, options) for row in body)])
            for index, title in enumerate(titles)
        ]
        shown, stacked = self._choose(widths, width)
        if self.title:
            yield Text(plain(self.title, console), style="italic")
        yield from self._lines(rows, titles, widths, shown, stacked, width)
        if left_out := [column.name for index, column in enumerate(self.columns) if index not in shown and column.name]:
            yield Text(plain(f"Not shown in {width} characters: {', '.join(left_out)}.", console), style="dim")
        if self.caption:
            yield Text(plain(self.caption, console), style="dim")

    def _choose(self, widths: list[int], width: int) -> tuple[list[int], bool]:
        """The columns that are shown, and whether the first cell stands above the others."""
        beside = self._fitting(widths, width)
        if not self.stacked or all(index in beside for index, column in enumerate(self.columns) if column.rank == 0):
            return beside, False
        return [0, *(index for index in self._fitting([0, *widths[1:]], width) if index)], True

    def _fitting(self, widths: list[int], width: int) -> list[int]:
        first = widths[0] if self.stacked else min(widths[0], max(12, width // 3))
        shown = list(range(len(widths)))
        leaving = sorted(shown[1:], key=lambda index: (self.columns[index].rank, index))
        while leaving and first + sum(widths[index] for index in shown[1:]) + GAP * (len(shown) - 1) > width:
            shown.remove(leaving.pop())
        return shown

    def _lines(
        self, rows: Sequence[TerminalRow], titles: list[str], widths: list[int], shown: list[int], stacked: bool, width: int
    ) -> Iterator[RenderableType]:
        rest = sum(widths[index] for index in shown[1:]) + GAP * (len(shown) - 1)
        widths = [min(widths[0], max(1, width - rest)), *widths[1:]]
        columns = shown[1:] if stacked else shown

        def table(header: bool) -> Table:
            made = Table(box=None, pad_edge=False, padding=(0, GAP, 0, 0), header_style="bold", show_header=header)
            for index in columns:
                column = self.columns[index]
                justify: JustifyMethod = "left" if column.left or index == 0 else "right"
                made.add_column(titles[index], width=widths[index], no_wrap=True, overflow="ellipsis", justify=justify, style=column.style)
            return made

        def placed(part: Table) -> Iterator[RenderableType]:
            if part.columns and (part.row_count or part.show_header):
                yield Padding(part, (0, 0, 0, GAP)) if stacked else part

        if stacked:
            yield Text(titles[0], style="bold")
        part = table(header=True)
        for row in rows:
            if stacked or len(row.cells) == 1:
                yield from placed(part)
                part = table(header=False)
                yield _heading(row)
            if len(row.cells) > 1:
                part.add_row(*(row.cells[index] for index in columns), style=row.style)
        yield from placed(part)


def terminal_console() -> Console:
    """The console of a command that shows tables: as wide as its terminal; 160 characters in a pipe, which has no width of its own."""
    piped = not sys.stdout.isatty() and "COLUMNS" not in os.environ
    return Console(width=160 if piped else None)


def plain(text: str, console: Console) -> str:
    """The text in ASCII where the terminal cannot show more."""
    if console.encoding.lower().startswith("utf"):
        return text
    for sign, written in ASCII:
        text = text.replace(sign, written)
    return text


def printable(text: str) -> str:
    """The text in one line; a character that steers a terminal or the direction of writing is shown as its code."""
    return "".join(map(_printable, text))


def _printable(character: str) -> str:
    if character.isprintable() or character in JOINERS:
        return character
    return " " if character.isspace() else ascii(character)[1:-1]


def _cell(cell: RenderableType, console: Console) -> RenderableType:
    return Text(plain(cell.replace(" ± ", "±"), console)) if isinstance(cell, str) else cell


def _width(cell: RenderableType, console: Console, options: ConsoleOptions) -> int:
    return cell.cell_len if isinstance(cell, Text) else Measurement.get(console, options, cell).maximum


def _heading(row: TerminalRow) -> RenderableType:
    cell = row.cells[0]
    if isinstance(cell, Text):
        cell = cell.copy()
        cell.stylize(row.style)
    return cell
