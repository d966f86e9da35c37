"""Every table of every command on terminals of several widths: no line is too long, no cell is broken, what is left out is named."""

import io
from types import SimpleNamespace

import pytest
from rich.console import Console
from rich.text import Text
from test_report_study_data import write_full_study

from unlearn_lightning.cli.closing_table import closing_table
from unlearn_lightning.cli.quantised import print_recovery
from unlearn_lightning.cli.terminal import Column, TerminalRow, TerminalTable, terminal_console
from unlearn_lightning.records import Quantity, record_path, write_json
from unlearn_lightning.records.study_data import TrainingPath, load_study
from unlearn_lightning.report.depths import Depth, OrderDepth
from unlearn_lightning.report.section import Material
from unlearn_lightning.report.sections.closing import Closing
from unlearn_lightning.report.sections.comparison import Against
from unlearn_lightning.report.sections.depth import depth_table
from unlearn_lightning.study.estimate import RunCost
from unlearn_lightning.study.frame import ProbeMetrics, frame
from unlearn_lightning.study.plan_view import COLUMNS, Speed, _table
from unlearn_lightning.study.state import RunState
from unlearn_lightning.study.status import tree_of
from unlearn_lightning.theory.parts import _table as theory_table

WIDTHS = (40, 80, 100, 160)
LONG = "seed1/response-families/" + "/".join(["inst-tofu-math-safety"] * 3)


def lines(table, width):
    stream = io.StringIO()
    Console(file=stream, width=width).print(table)
    return stream.getvalue().splitlines()


def check(table, width):
    """What must hold of any table at any width; gives the names of the columns that are left out."""
    left_out = []
    shown = lines(table, width)
    assert max(map(len, shown)) <= width
    text = "\n".join(shown)
    named = " ".join(text.split()).partition(f"Not shown in {width} characters: ")[2]
    for index, column in enumerate(table.columns):
        cells = [row.cells[index] for row in table._rows if len(row.cells) > 1]
        written = [cell.plain if isinstance(cell, Text) else cell.replace(" ± ", "±") for cell in cells if isinstance(cell, Text | str)]
        whole = all(cell in text for cell in written)
        if index == 0:
            whole = all("".join(cell.split()) in "".join(text.split()) for cell in written)  # a name may take two lines
        assert whole or column.name in named, (column.name, width)
        assert whole or column.rank > 0, f"{column.name} stays in any case"
        left_out += [] if whole else [column.name]
    return left_out


@pytest.fixture(scope="module")
def tables(tmp_path_factory):
    """A table of each command, by the command's name."""
    folder = tmp_path_factory.mktemp("tables")
    study, other = (load_study(write_full_study(folder / name, seeds=(1, 2), steps=range(0, 5, 2))) for name in ("one", "two"))
    material = Material(study, Material(other))
    [closing] = [table for table in Closing(material).tables if table.on_terminal]
    [comparison] = [table for table in Against(material).tables if table.on_terminal]
    one = Depth(1, "deep", -2.0, 20.0, {"R": 1.0, "C": 30.0, "U": 31.5})
    order = OrderDepth("NPO", TrainingPath(0, 1, ("U", "C", "R"), "UCR", 2), [one])
    made = [closing, comparison, depth_table([order])]
    for first, names in ((0, ("0.812 ± 0.031",)), (1, ("heavy tailed, with a name of some length",))):
        cells = [names[0], *(f"{number}.234 ± 0.056" for number in range(9))]
        made.append(theory_table([f"column {number}" for number in range(10)], shown=(first, 5, 6, 9)))
        for _ in range(2):
            made[-1].add(*cells)
    closing, comparison, depth, theorem, extensions = (table.terminal() for table in made)
    runs = [SimpleNamespace(name=name) for name in ("seed1/base", "seed1/inst-tofu-math-safety", "seed1/p4/simnpo")]
    estimates = {run.name: RunCost(12804, 614_400, 612_900, 400, 1.58e12, 1_723_000, 1_723_000, True) for run in runs}
    return {
        "closing": closing, "comparison": comparison, "depth": depth, "theorem": theorem, "extensions": extensions,
        "plan": _table(runs, estimates, Speed("", tokens_per_second=12_000)),
    }  # fmt: skip


@pytest.mark.parametrize("name", ["closing", "comparison", "depth", "theorem", "extensions", "plan"])
@pytest.mark.parametrize("width", WIDTHS)
def test_no_line_is_too_long_and_no_cell_is_broken(tables, name, width):
    check(tables[name], width)


def test_a_wider_terminal_shows_more_and_160_characters_show_all(tables):
    for table in tables.values():
        left_out = [check(table, width) for width in WIDTHS[1:]]
        assert [len(one) for one in left_out] == sorted((len(one) for one in left_out), reverse=True)
        assert left_out[-1] == [] or table is tables["theorem"] or table is tables["extensions"]


def test_the_plan_at_80_characters(tables):
    shown = lines(tables["plan"], 80)
    assert "seed1/inst-tofu-math-safety" in shown[3]
    assert shown[3].split()[1:] == ["12804", "~612.9k", "400", "1.58e+12", "1.723", "MB", "0.014"]
    assert shown[-1] == "Not shown in 80 characters: tokens/epoch."


@pytest.mark.parametrize("width", WIDTHS)
def test_long_names_take_a_line_of_their_own(width):
    row = ["12804", "~614.4k", "~612.9k", "400", "1.58e+12", "1.723 MB", "1.6e-05"]
    table = TerminalTable(COLUMNS, [[LONG, *row], ["seed1/base", *row]])
    check(table, width)
    if width == 80:
        shown = [line.strip() for line in lines(table, width)]
        assert shown[shown.index("seed1/base") + 1].split() == " ".join(row).split(), "all columns fit below the name"


@pytest.mark.parametrize("width", [*WIDTHS, 20])
def test_the_picture_of_a_study_fits(width, tmp_path):
    runs = [
        RunState(str(i), name, "unlearn", tmp_path / str(i), (), "running", 12_345, 123_456)
        for i, name in enumerate(["seed1/p4/npo", LONG])
    ]  # fmt: skip
    stream = io.StringIO()
    Console(file=stream, width=width).print(frame(runs, ProbeMetrics(), "demo", width=width))
    shown = stream.getvalue().splitlines()
    assert max(map(len, shown)) <= width
    if width > 20:
        assert sum("12345/123456" in line for line in shown) == 2
        assert any("…" in line for line in shown) or width == 160


@pytest.mark.parametrize("width", WIDTHS)
def test_the_tree_of_status_fits(width, tmp_path):
    why = "RuntimeError: the loss is 1234567.125 at step 12345"
    runs = [RunState("0", "seed1/base", "stage", tmp_path, (), "running", 12_345, 123_456)]
    runs += [RunState(str(i), "seed1/inst-tofu-safety", "stage", tmp_path, (str(i - 1),), "failed", why=why) for i in range(1, 4)]
    stream = io.StringIO()
    Console(file=stream, width=width).print(tree_of(runs, "runs/demo: 1 running"))
    shown = stream.getvalue()
    assert max(map(len, shown.splitlines())) <= width
    words = [word for line in shown.splitlines() for word in line.split()]
    assert [words.count(word) for word in ("12345", "123456", "1234567.125")] == [4, 1, 3], "each number is whole"


def test_columns_leave_by_rank():
    columns = [Column("run", 0), Column("least", 3), Column("must", 0), Column("more", 1)]
    table = TerminalTable(columns, [TerminalRow(["x" * 10, *["1234567890"] * 3])])
    assert [line.rstrip() for line in lines(table, 45)][-1] == "Not shown in 45 characters: least."
    assert lines(table, 46)[-1].split() == ["x" * 10, *["1234567890"] * 3]
    assert " ".join(lines(table, 33)[-2:]).split() == ["Not", "shown", "in", "33", "characters:", "least,", "more."]
    # The run stands above its number.
    assert [line.rstrip() for line in lines(table, 21)][:4] == ["run", "        must", "x" * 10, "  1234567890"]


def test_ascii_terminals_get_ascii():
    stream = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    Console(file=stream, width=80).print(TerminalTable([Column("a → b")], [["−1.00 ± 0.25"]], "x²", "·"))
    stream.seek(0)
    assert stream.read().split() == ["x^2", "a", "->", "b", "-1.00+-0.25", "-"]


def test_a_pipe_is_wide_and_columns_win(monkeypatch):
    monkeypatch.delenv("COLUMNS", raising=False)
    assert terminal_console().width == 160
    monkeypatch.setenv("COLUMNS", "72")
    assert terminal_console().width == 72


@pytest.mark.parametrize("hostile", ["\x1b[2J", "\x1b]0;x\x07", "\u202e", "\r\n", "[/red]", "[link=http://x]y", "A" * 10_000])
def test_a_probe_s_words_steer_no_terminal_and_hide_no_number(hostile, tmp_path, capsys):
    metric = f"mine/{hostile}"
    quantities = {metric: Quantity(f"title {hostile}", f"unit {hostile}").as_json()}
    for name, step, value in (("mine", 0, 0.5), ("mine", 4, 0.25), ("mine.nf4", 4, 0.375)):
        record = {"probe": name, "step": step, "metrics": {metric: value}, "quantities": quantities, "examples": []}
        write_json(record_path(tmp_path, name, step), record)
    console = Console(file=io.StringIO(), width=80, force_terminal=False)
    console.print(closing_table(tmp_path, ["mine"]))
    print_recovery(tmp_path)
    closing, recovery = console.file.getvalue(), capsys.readouterr().out
    assert closing.split().count("0.5") == closing.split().count("0.25") == closing.split().count("-0.25") == 1
    # (0.375 - 0.25) / (0.5 - 0.25): half of it came back.
    assert recovery.split().count("50%") == 1
    assert all(one.isprintable() or one == "\n" for one in closing + recovery)
    assert len(hostile) > 100 or not hostile.startswith("[") or all(hostile in "".join(text.split()) for text in (closing, recovery))
