"""The learning rates' rule and the table of methods, by hand; the page says what the CSV beside it says."""

import math
from pathlib import Path

import pytest

from scripts.methods_table.ladder import Chosen, by_rule, with_rates
from scripts.methods_table.page import methods_block
from scripts.methods_table.relearning import relearning
from scripts.methods_table.rows import NOT_BACK, ROBUSTNESS, STEPS
from scripts.study_results.measured import NAN, Row
from scripts.study_results.table_file import put, read

DOCS = Path(__file__).parents[1] / "docs"
MADE = {
    "commit": "abc1234", "processor": "a processor", "versions": "torch 2", "runs": "9 runs", "local": "ga, wga", "rates": "ga=0.0002",
    "costs": "ga=1.05",
}  # fmt: skip


def test_the_docs_say_what_the_csv_says():
    page = (DOCS / "methods.md").read_text()
    assert page == put(page, "demo_methods", methods_block(*read(DOCS / "data" / "demo_methods.csv"))), (
        "write it anew: scripts/methods table"
    )


@pytest.mark.parametrize(
    ("measured", "rate", "reached"),
    [
        ({1e-4: (2.0, 1.0), 3e-4: (4.0, 0.9), 9e-4: (9.0, 0.1)}, 3e-4, True),
        # None is enough: the largest that leaves 0.9 of the retention, or else the smallest.
        ({1e-4: (1.0, 1.0), 3e-4: (2.0, 0.9), 9e-4: (3.0, 0.1)}, 3e-4, False),
        ({1e-4: (1.0, 0.8), 3e-4: (2.0, 0.5)}, 1e-4, False),
        ({9e-4: (5.0, 0.2), 1e-4: (4.0, 0.3)}, 1e-4, True),
    ],
)
def test_the_rule(measured, rate, reached):
    assert by_rule(measured, 4.0) == Chosen(rate, *measured[rate], reached)


def test_rates_go_into_the_studys_file_and_nothing_else_changes():
    text = "objectives:\n  ga: {model: {optimizer: {lr: 1.5e-4}}}\n  rmu:\n    model: {optimizer: {lr: 1.5e-4}, x: 1}\n  pdu: {lr: 3}\n"
    rates = {"ga": Chosen(5e-5, 0.0, 1.0, True), "rmu": Chosen(1.5e-3, 0.0, 1.0, False)}
    assert with_rates(text, rates) == text.replace("1.5e-4", "5.0e-05", 1).replace("1.5e-4", "1.5e-03", 1)


def test_the_table_by_hand():
    """Two objectives on two paths and two seeds; a noise of 2 and 8, whose geometric mean is 4 and mean 5."""
    rows = []
    for seed, scale in ((1, 1.0), (2, 3.0)):
        for name, falls in (("ga", {"p=1": 4.0, "p=4": 1.0}), ("wga", {"p=1": 2.0, "p=4": 2.5}), ("rmu", {"p=1": 1.0, "p=4": 0.5})):
            for path, fell in falls.items():
                rows.append(Row(seed, path, name, "label", -0.5, -0.5 - fell * scale))
                rows.append(Row(seed, path, name, "tofu", -0.1, -0.1 - fell / 10))
                rows.append(Row(seed, path, name, "to retrained", 100.0, 10.0 * fell))
            rows.append(Row(seed, "p=1 and p=4", name, "between paths", 1.0, 2.0 if name == "ga" else 0.5))
    rows += [Row(1, "seed 2", "", "between retrained", NAN, 2.0), Row(1, "seed 3", "", "between retrained", NAN, 8.0)]
    lines = methods_block(MADE, rows).splitlines()
    ga = next(line for line in lines if line.startswith("| GA |"))
    # Mean drops 2.5 and 7.5, spreads 3 and 9: halves of t(0.975, 1) times the deviation over the root of 2.
    half = 12.7062047
    assert ga.startswith(f"| GA | yes | 0.0002 | 1.05 | 5.00 ± {half * 2.5:.2f} | 6.00 ± {half * 3:.2f} | 2 of 2 (34% to 100%) | 2 of 2 |")
    assert "| RMU | no | – | – |" in "\n".join(lines)
    distance = [line for line in lines if line.startswith("| GA |")][1]
    assert distance.startswith("| GA | 100 (100 to 100) | 10 (10 to 10) | 40 (40 to 40) | 2 (2 to 2) |")
    assert any("4 (" in line and "2 pairs" in line for line in lines)
    # Ranked by drop, p=1: ga, wga, rmu; p=4: wga, ga, rmu: two of three pairs agree.
    assert next(line for line in lines if line.startswith("| label drop |")).startswith("| label drop | 0.33")
    assert math.isnan(NAN)


def test_the_table_of_relearning_by_hand():
    rows = []
    # Steps of the retrained model are 10 and 8 of 16; GA's are back on all paths, RMU's are not on p=1 in seed 2.
    taken = {"ga": {1: {"p=1": 5, "p=4": 2}, 2: {"p=1": 4, "p=4": 4}}, "rmu": {1: {"p=1": 10, "p=4": 5}, 2: {"p=1": 16, "p=4": 8}}}
    for name, seeds in taken.items():
        for seed, paths in seeds.items():
            for path, steps in paths.items():
                rows.append(Row(seed, path, name, "label", 0.0, -1.0))
                rows.append(Row(seed, path, name, STEPS, 10.0 if seed == 1 else 8.0, float(steps)))
                rows.append(Row(seed, path, name, NOT_BACK, 0.0, float(steps == 16)))
                rows.append(Row(seed, path, name, ROBUSTNESS, NAN, 0.5 if seed == 1 else 1.0))
    head, _, _, _, ga, rmu, _ = relearning(rows)
    assert "(8 to 10 over 4 pairs of a seed and a path)" in head
    # GA: means 3.5 and 4, spreads 3 and 0, ratios (0.5 + 0.2) / 2 and 0.5; p=4 alone in seed 1, with p=1 in seed 2. t(0.975, 1) is 12.7.
    half = 12.7062047
    cells = [f"3.8 ± {half * 0.25:.1f}", f"1.5 ± {half * 1.5:.1f}", "1 of 2 (9% to 91%)", "1", "0 of 4"]
    assert ga == f"| GA | {' | '.join(cells)} | 0.42 ± {half * 0.075:.2f} | 0.75 ± {half * 0.25:.2f} |"
    # RMU: means 7.5 and at least 12, ratios 0.75 and at least 1.5.
    assert rmu.startswith(f"| RMU | ≥ 9.8 ± {half * 2.25:.1f} |")
    assert f"| 2 of 2 (34% to 100%) | 0 | 1 of 4 | ≥ 1.12 ± {half * 0.375:.2f} |" in rmu
    # A seed in which a path is missing is left out, and without any seed there is no table.
    some = [row for row in rows if (row.seed, row.path, row.quantity) != (2, "p=4", STEPS)]
    assert next(line for line in relearning(some) if line.startswith("| GA |")).startswith("| GA | 3.5 | 3.0 | 1 of 1 ")
    assert relearning([row for row in rows if row.quantity == ROBUSTNESS]) == []
