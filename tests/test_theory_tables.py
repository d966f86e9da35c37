"""The tables of docs/theory.md are what the command computes: those that take seconds are computed again, all are the committed CSV's."""

import csv
import re

import pytest

from scripts.theory_tables import DATA, PAGE, PARTS
from unlearn_lightning.theory.findings import measure
from unlearn_lightning.theory.parts import removal_part, theorem_part
from unlearn_lightning.theory.setup import Setup

NUMBER = re.compile(r"[-+−]?\d+(?:\.\d+)?(?:e[-+]?\d+)?")
ROUNDING = 1e-11


def said(part):
    text = PAGE.read_text(encoding="utf-8")
    return text.partition(f"<!-- results of {part} -->\n")[2].partition(f"<!-- end of {part} -->")[0]


def numbers(table):
    rows = [line for line in table.splitlines() if line.startswith("| ")][2:]
    return [float(found.replace("−", "-")) for row in rows for found in NUMBER.findall(row)]


def alike(one, other):
    """To the last figure that is shown, but for what is rounding."""
    return max(abs(one), abs(other)) < ROUNDING or one == pytest.approx(other, rel=0.02, abs=1.1e-4)


def test_theorem_and_retraining_come_out_as_the_page_says():
    found = measure(Setup(), range(20), 0.01)
    for part in (theorem_part(found), removal_part(found)):
        page, computed = numbers(said(part.key)), numbers(part.table.markdown())
        assert len(page) == len(computed) > 10
        assert [pair for pair in zip(page, computed, strict=True) if not alike(*pair)] == []


@pytest.mark.parametrize("part", PARTS)
def test_every_table_has_its_numbers_beside_it(part):
    with (DATA / f"{part}.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    text = said(part)
    assert "Written by `scripts/theory` at commit " in text
    lines = len([line for line in text.splitlines() if line.startswith("| ")]) - 2
    assert lines == len(rows) / (20 if "seed" in rows[0] else 1)


def test_the_growth_rates_are_the_csvs():
    with (DATA / "extensions.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    cells = [line.split(" | ") for line in said("extensions").splitlines() if line.startswith("| ")][2:]
    for row, shown in zip(rows, cells, strict=True):
        assert shown[1] == row["unlearner"]
        assert numbers(f"| \n| \n| {shown[4]}")[0] == pytest.approx(float(row["last_quarter_rate"]), abs=1e-4)
        assert numbers(f"| \n| \n| {shown[6]}")[0] == pytest.approx(float(row["end"]), rel=0.01)
