"""The columns of a table: each type says how its cells are read by people, by a spreadsheet and on a narrow terminal.

Interval("retention", digits=3).text(estimate([0.9, 0.8]))      # "0.850 ± 0.635"
Interval("retention").values(estimate([0.9, 0.8]))              # [0.85, 0.6353..., 2], each in a column of its own
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from unlearn_lightning.records.statistics import number_text
from unlearn_lightning.records.study_data import TrainingPath

Value = str | float | int | None
DASH = "–"


@dataclass(frozen=True)
class Column:
    """A column of texts, and what all columns have.

    Attributes:
        title: what people read above the cells.
        name: what CSV and logged tables call it; the title where it is empty.
        unit: stands behind the title in brackets.
        group: a heading over neighbouring columns.
        rank: on a terminal that is too narrow the highest ranks leave first; those of rank 0 stay; null is never on a terminal.
        short: the title on a terminal, in one or more lines.
        heads: on a terminal a value of this column is a heading above the rows that share it.
        in_full: the column is in CSV and logged tables alone.
        right: the cells are flush right, as numbers are.
    """

    title: str
    name: str = ""
    unit: str = ""
    group: str = ""
    rank: int | None = 1
    short: str = ""
    heads: bool = False
    in_full: bool = False
    right: bool = False

    @property
    def heading(self) -> str:
        """The title with its unit."""
        return f"{self.title} ({self.unit})" if self.unit else self.title

    def parts(self, cell: Any) -> tuple[str, str]:
        """What a cell says, and what stands beside it in small print."""
        return (DASH if cell is None else str(cell)), ""

    def text(self, cell: Any) -> str:
        """Both parts in one line."""
        return " ".join(part for part in self.parts(cell) if part)

    def brief(self, cell: Any) -> str:
        """The cell on a terminal."""
        return self.text(cell)

    def fields(self) -> list[str]:
        """The names of the plain values that a cell has."""
        return [self.name or self.title]

    def values(self, cell: Any) -> list[Value]:
        """The cell as plain values, one per field: numbers in full, null where nothing was measured."""
        return [cell]

    def style(self, cell: Any) -> str:
        """CSS classes of the cell."""
        return "n" if self.right else ""

    def hues(self, cell: Any) -> Sequence[int]:
        """The colours of the dots before the cell, as indices of the palette."""
        return ()


@dataclass(frozen=True)
class Text(Column):
    """Words. `long` ones keep their lines on the page and get the width they need."""

    long: bool = False

    def style(self, cell: Any) -> str:
        return "long" if self.long else super().style(cell)


@dataclass(frozen=True)
class Number(Column):
    """Numbers; a cell is a float, an int or null, and nan is shown as a dash.

    Attributes:
        digits: behind the point; null for four significant ones.
        signed: whether a number above zero has a sign.
    """

    digits: int | None = None
    signed: bool = False
    right: bool = True

    def number(self, value: float | None) -> str:
        """A number as people read it."""
        return DASH if value is None else number_text(value, self.digits, self.signed)

    def parts(self, cell: Any) -> tuple[str, str]:
        return self.number(cell), ""

    def values(self, cell: Any) -> list[Value]:
        return [None if cell is None or math.isnan(cell) else cell]


@dataclass(frozen=True)
class Interval(Number):
    """Means over seeds with the half width of their 95% interval; a cell is an `Estimate`. `count` is what n counts."""

    count: str = "seeds"
    intervals: bool = True
    """Whether a terminal shows the half width, too."""

    def parts(self, cell: Any) -> tuple[str, str]:
        return self.number(cell.mean), "" if math.isnan(cell.half_width) else f"± {number_text(cell.half_width, self.digits)}"

    def brief(self, cell: Any) -> str:
        return self.text(cell) if self.intervals else self.number(cell.mean)

    def fields(self) -> list[str]:
        name = self.name or self.title
        return [name, f"{name}_ci95", f"{name}_{self.count}"]

    def values(self, cell: Any) -> list[Value]:
        return [*super().values(cell.mean), *super().values(cell.half_width), cell.n]


@dataclass(frozen=True)
class Change(Interval):
    """Before and after; a cell is a pair of `Estimate`, and `after` is the name of the second one's fields."""

    after: str = "after"

    def parts(self, cell: Any) -> tuple[str, str]:
        known = any(not math.isnan(one.half_width) for one in cell)
        digits = 0 if known and max(abs(one.mean) for one in cell) >= 100 else self.digits
        return " → ".join(one.text(digits) for one in cell), ""

    def brief(self, cell: Any) -> str:
        return " → ".join(self.number(one.mean) for one in cell)

    def fields(self) -> list[str]:
        return [*super().fields(), *Interval(self.after, count=self.count).fields()]

    def values(self, cell: Any) -> list[Value]:
        return [value for one in cell for value in Interval.values(self, one)]


@dataclass(frozen=True)
class Difference(Interval):
    """Two studies' values and their difference; a cell is (mine, theirs, mine - theirs), each an `Estimate`."""

    def parts(self, cell: Any) -> tuple[str, str]:
        mine, theirs, difference = cell
        if not difference.n:
            return "", self.number(mine.mean if mine.n else theirs.mean)
        digits = 2 if self.digits is None else self.digits
        return difference.text(digits, signed=True), f"{self.number(mine.mean)} vs {self.number(theirs.mean)}"

    def fields(self) -> list[str]:
        return [f"{side}{field}" for side in ("", "against_", "difference_") for field in super(Difference, self).fields()]

    def values(self, cell: Any) -> list[Value]:
        return [value for one in cell for value in Interval.values(self, one)]


@dataclass(frozen=True)
class Counted(Column):
    """Shares of n with their Wilson interval; a cell is a `Share`, such as `2 of 3 (21% to 94%), 1 left out`."""

    count: str = "seeds"
    right: bool = True

    def parts(self, cell: Any) -> tuple[str, str]:
        left_out = f", {cell.left_out} left out" if cell.left_out else ""
        if not cell.n:
            return f"{DASH}{left_out}", ""
        low, high = cell.interval
        return f"{cell.hits} of {cell.n}", f"({low:.0%} to {high:.0%}){left_out}"

    def fields(self) -> list[str]:
        name = self.name or self.title
        return [name, *(f"{name}_{what}" for what in ("low", "high", "hits", self.count, "left_out"))]

    def values(self, cell: Any) -> list[Value]:
        shares = [cell.hits / cell.n, *cell.interval] if cell.n else [None, None, None]
        return [*shares, cell.hits, cell.n, cell.left_out]


@dataclass(frozen=True)
class Flag(Column):
    """Something that holds for some rows; a cell is a bool. `sign` says so to people."""

    sign: str = "yes"

    def parts(self, cell: bool) -> tuple[str, str]:
        return self.sign if cell else "", ""

    def brief(self, cell: bool) -> str:
        return self.sign[:1] if cell else ""

    def values(self, cell: bool) -> list[Value]:
        return [int(cell)]


@dataclass(frozen=True)
class Paths(Column):
    """Training paths; a cell is one, or a tuple of them. With `arrow`, the stages stand beside the name, and CSV has them, too.

    `alone` is named beside a path that is the only one of its tuple.
    """

    title: str = "path"
    rank: int | None = 0
    arrow: bool = False
    alone: str = ""

    def parts(self, cell: Any) -> tuple[str, str]:
        names = [path.label for path in _paths(cell)]
        return " | ".join(filter(None, names if names[1:] else [*names, self.alone])), _paths(cell)[0].arrow if self.arrow else ""

    def brief(self, cell: Any) -> str:
        return self.parts(cell)[0]

    def fields(self) -> list[str]:
        return ["p", "label", "path"] if self.arrow else super().fields()

    def values(self, cell: Any) -> list[Value]:
        return [cell.p, cell.label, " ".join(cell.stages)] if self.arrow else [self.brief(cell)]

    def hues(self, cell: Any) -> Sequence[int]:
        return [path.index for path in _paths(cell)]


def _paths(cell: Any) -> tuple[TrainingPath, ...]:
    return cell if isinstance(cell, tuple) else (cell,)
