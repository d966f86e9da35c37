"""What a command says when it is done: what every probe measured before and after, and where things lie.

console.print(closing_table(Path("runs/mine"), ["forget", "retain"]))

    quantity        unit        before   after   change
    forget: 200 examples, steps 0 to 130
    log-likelihood  nats/token  -0.104  -5.213   -5.109

It is read from records alone, so that any probe's quantities stand there, and a run that is finished already says the same again.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from rich.console import Console, Group, RenderableType
from rich.text import Text

from unlearn_lightning.records import Quantity, number, read_json, record_paths
from unlearn_lightning.report.terminal import Column, TerminalRow, TerminalTable, terminal_console
from unlearn_lightning.runs.content import RESULTS

DIGITS = 4
"""How many significant digits a value has."""


def print_closing(folder: Path, probes: Sequence[str], trained: bool) -> None:
    """Prints what the probes measured, and the places of what was written.

    Args:
        folder: the run folder.
        probes: their names, in the order of the configuration.
        trained: whether the run trained something, or only measured.
    """
    console = terminal_console()
    if table := closing_table(folder, probes):
        console.print(table)
    for line in _places(folder, trained):
        _whole(console, line)


def closing_table(folder: Path, probes: Sequence[str]) -> RenderableType | None:
    """The table; null where nothing was measured."""
    columns = [Column("quantity", 0), Column("unit", 2, left=True), *(Column(name, 0) for name in ("before", "after", "change"))]
    measured = [rows for probe in probes if (rows := list(_rows(folder, probe)))]
    if not measured:
        return None
    once = all(len(row.cells) == 1 or row.cells[3] == "" for rows in measured for row in rows)
    if once:
        columns = [*columns[:2], Column("value", 0)]
        measured = [[TerminalRow(row.cells[:3], row.style) for row in rows] for rows in measured]
    return Group(Text(), TerminalTable(columns, [row for rows in measured for row in rows]), Text())


def _rows(folder: Path, probe: str) -> Iterator[TerminalRow]:
    """A heading, and a row for each quantity; none where the probe measured nothing."""
    paths = record_paths(folder, probe)
    if not paths:
        return
    first, last = read_json(paths[0]), read_json(paths[-1])
    several = len(paths) > 1
    steps = f", steps {first['step']:,} to {last['step']:,}" if several else f", step {last['step']:,}" if last["step"] else ""
    count = len(last["examples"])
    yield TerminalRow([Text(f"{probe}: {count:,} example{'s' * (count != 1)}{steps}", "bold")])
    for metric, value in last["metrics"].items():
        quantity, after, before = Quantity.of(last, metric), number(value), number(first["metrics"].get(metric))
        texts = [_text(before), _text(after), _text(after - before, "+")] if several else [_text(after), "", ""]
        yield TerminalRow([f"  {quantity.title}", quantity.unit, *texts])


def _text(value: float, sign: str = "") -> str:
    return "–" if value != value else f"{value:{sign}.{DIGITS}g}"


def _places(folder: Path, trained: bool) -> Iterator[str]:
    named = _short(folder)
    for name in RESULTS if trained else ():
        if (folder / name).is_dir():
            yield f"{name.capitalize() + ':':<10}{named}/{name}   (for plain transformers: unlearn export {named})"
    if (folder / "metrics.csv").is_file():
        yield f"{'Metrics:':<10}{named}/metrics.csv, by step"
    if (folder / "records").is_dir():
        yield f"{'Records:':<10}{named}/records, by example, with the answers"
    if trained:
        yield f"{'Report:':<10}unlearn report {named}"


def _short(folder: Path) -> str:
    """The folder as one would type it here."""
    here = Path.cwd()
    return str(folder.relative_to(here)) if folder.is_relative_to(here) and folder != here else str(folder)


def _whole(console: Console, line: str) -> None:
    # A path that is broken over two lines cannot be copied.
    console.print(line, soft_wrap=True, markup=False, highlight=False)
