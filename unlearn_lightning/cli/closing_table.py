"""What a command says when it is done: what every probe measured before and after, and where things lie.

console.print(closing_table(Path("runs/mine"), ["forget", "retain"]))

    quantity             unit        before  after   change
    forget: 200 examples
      log-likelihood     nats/token  -0.104  -5.213  -5.109

It is read from records alone, so that any probe's quantities stand there, and a run that is finished already says the same again.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from unlearn_lightning.cli.terminal import printable
from unlearn_lightning.records import Quantity, number, read_json, record_paths
from unlearn_lightning.runs.content import RESULTS

DIGITS = 4
"""How many significant digits a value has."""
LONGEST_TITLE, LONGEST_UNIT = 120, 20
"""Longer words of a probe are cut, so that its numbers stay in sight; its records have them whole."""


@dataclass(frozen=True)
class Measured:
    """The first and the last record of a probe, which are the same one where it measured once."""

    first: dict[str, Any]
    last: dict[str, Any]

    @property
    def title(self) -> str:
        """The probe's name and how many examples it measured."""
        count = len(self.last["examples"])
        return f"{self.last['probe']}: {count:,} example{'s' * (count != 1)}"

    def rows(self) -> Iterator[tuple[str, str, float, float]]:
        """Title, unit, first and last value of each quantity."""
        for metric, value in self.last["metrics"].items():
            quantity = Quantity.of(self.last, metric)
            yield quantity.title, quantity.unit, number(self.first["metrics"].get(metric)), number(value)


def print_closing(folder: Path, probes: Sequence[str], trained: bool) -> None:
    """Prints what the probes measured, and the places of what was written.

    Args:
        folder: the run folder.
        probes: their names, in the order of the configuration.
        trained: whether the run trained something, or only measured.
    """
    console = Console()
    if table := closing_table(folder, probes):
        for part in ("", table, ""):
            console.print(part)
    for line in _places(folder, trained):
        # A path that is broken over two lines cannot be copied.
        console.print(line, soft_wrap=True, markup=False, highlight=False)


def closing_table(folder: Path, probes: Sequence[str]) -> Table | None:
    """The table; null where nothing was measured."""
    found = [Measured(read_json(paths[0]), read_json(paths[-1])) for name in probes if (paths := record_paths(folder, name))]
    if not found:
        return None
    first, last = min(one.first["step"] for one in found), max(one.last["step"] for one in found)
    several = first != last
    caption = f"before: step {first:,}, after: step {last:,}" if several else None
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold", caption=caption, caption_justify="left")
    table.add_column("quantity", overflow="fold")
    table.add_column("unit", no_wrap=True)
    for column in ("before", "after", "change") if several else ("value",):
        table.add_column(column, justify="right", no_wrap=True)
    for one in found:
        table.add_row(Text(printable(one.title), "bold"))
        for title, unit, before, after in one.rows():
            values = [_text(before), _text(after), _text(after - before, "+")] if several else [_text(after)]
            table.add_row(Text(f"  {_words(title, LONGEST_TITLE)}"), Text(_words(unit, LONGEST_UNIT)), *values)
    return table


def _words(text: str, longest: int) -> str:
    shown = printable(text)
    return shown if len(shown) <= longest else f"{shown[: longest - 3]}..."


def _text(value: float, sign: str = "") -> str:
    return "-" if value != value else f"{value:{sign}.{DIGITS}g}"


def _places(folder: Path, trained: bool) -> Iterator[str]:
    named = _short(folder)
    exported = {"adapter": f"   (for plain transformers: unlearn export {named})", "model": ", for plain transformers"}
    for name in RESULTS if trained else ():
        if (folder / name).is_dir():
            yield f"{name.capitalize() + ':':<10}{named}/{name}{exported[name]}"
    if (folder / "metrics.csv").is_file():
        yield f"{'Metrics:':<10}{named}/metrics.csv, by step"
    if (folder / "records").is_dir():
        yield f"{'Records:':<10}{named}/records, by example, with the answers"
    if trained or (folder / "records").is_dir():
        yield f"{'Report:':<10}unlearn report {named}"


def _short(folder: Path) -> str:
    """The folder as one would type it here."""
    here = Path.cwd()
    return str(folder.relative_to(here)) if folder.is_relative_to(here) and folder != here else str(folder)
