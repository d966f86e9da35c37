"""The numbers of the docs are those of the CSV files beside them, and these are made of the records of a study."""

import json
import math
import re

import pytest
from scipy.stats import t
from test_report_study_data import write_full_study

from scripts.study_results.earlier import with_earlier
from scripts.study_results.measured import Row, measured, names_the_answer
from scripts.study_results.pages import DOCS, PAGES
from scripts.study_results.table_file import block, put, read, write
from scripts.study_results.twins import as_twin, described, spread, verdicts

STUDIES = [
    (page, path.stem)
    for page in PAGES.values()
    for path in sorted((DOCS / page.data).glob("*.csv"))
    if (page.data, path.stem) != ("data", "demo_methods")  # It has a test of its own.
]
MADE = {"commit": "abc1234", "processor": "a processor", "versions": "torch 2", "steps": "16", "runs": "3 runs"}


@pytest.mark.parametrize(("page", "name"), STUDIES, ids=[f"{page.name}: {name}" for page, name in STUDIES])
def test_the_docs_say_what_the_csv_says(page, name):
    text = (DOCS / page.name).read_text()
    told = f"write it anew: scripts/results {page.csv(name)} --page docs/{page.name}"
    assert text == put(text, name, page.block(name, *read(page.csv(name)))), told


@pytest.mark.parametrize("page", PAGES.values(), ids=PAGES)
def test_what_stands_between_markers_has_a_csv(page):
    """A study's block whose numbers are not committed, or were thrown away, is seen; a block without content waits for its study."""
    named = re.findall("<!-- results of (.*) -->\n(?!<!-- end)", (DOCS / page.name).read_text())
    assert sorted(named) == sorted(name for of, name in STUDIES if of is page)


def test_a_changed_number_is_seen(tmp_path):
    """A page whose numbers were edited by hand differs from what the CSV gives."""
    rows = [Row(1, "p=4", "npo", "label", -0.1, -2.0), Row(1, "p=1", "npo", "label", -0.1, -3.0)]
    page = put("<!-- results of demo -->\n<!-- end of demo -->\n", "demo", block("demo", MADE, rows))
    assert "−0.10 → −2.00" in page
    edited = page.replace("−2.00", "−2.50")
    assert edited != put(edited, "demo", block("demo", MADE, rows))
    with pytest.raises(ValueError, match="no lines '<!-- results of other -->'"):
        put(page, "other", "")


def test_intervals_by_hand():
    """Means have a t-interval; distances a geometric mean with the t-interval of their logarithms; counts a Wilson interval."""
    labels = {1: -2.0, 2: -3.0, 3: -7.0}
    rows = [Row(seed, "p=4", "npo", "label", 0.0, value) for seed, value in labels.items()]
    rows += [Row(seed, "p=1", "npo", "label", 0.0, -5.0) for seed in labels]
    rows += [Row(seed, "p=1 and p=4", "npo", "between paths", 1.0, factor) for seed, factor in ((1, 10.0), (2, 1000.0), (3, 100.0))]
    text = block("demo", MADE, rows)
    # The deviation of -2, -3, -7 is sqrt(7).
    half = t.ppf(0.975, 2) * math.sqrt(7) / math.sqrt(3)
    assert f"−4.00 ± {half:.2f}" in text
    spread = t.ppf(0.975, 2) * math.log(10) / math.sqrt(3)
    assert f"| NPO | 3 of 3 | 100 ({100 / math.exp(spread):.3g} to {100 * math.exp(spread):.3g}) |" in text
    # 2 of 3: Wilson 1927, as in any table.
    assert "| NPO | 2 of 3 | 21% to 94% |" in text


def test_a_studys_records_become_rows_and_rows_a_file_that_reads_the_same(tmp_path):
    study = write_full_study(tmp_path / "demo", seeds=(1, 2))
    (study / "acceptance.json").write_text('{"seed1 p=4": {"refused": 1.0}, "seed1 safety > inst": {"refused": 0.5}}')
    made, rows = measured(study)
    by = {row[:4]: row[4:] for row in rows}
    assert by[1, "p=4", "ga", "label"] == (-0.2, pytest.approx(-0.2 - 0.5 * 0.1 * 1.1 * 16**1.2))
    assert by[1, "p=4", "ga", "margin"][0] == 12.0
    # One example in vectors of two tokens: (1 + 4)^2 from the retrained -1 to p=4's -5, nothing in the second token.
    assert by[1, "p=4", "npo", "to retrained"][0] == pytest.approx(16.0)
    assert by[2, "p=1 and p=3", "npo", "between paths"][0] == pytest.approx(4.0)
    assert by[1, "safety > inst", "", "answers: refused"][0] == 0.5
    assert len([row for row in rows if row.quantity == "between paths"]) == 2 * 3 * 6
    write(tmp_path / "demo.csv", made, rows)
    made_again, rows_again = read(tmp_path / "demo.csv")
    assert made_again == made
    assert block("demo", made, rows) == block("demo", made_again, rows_again)


def test_a_retrained_model_of_one_path_is_compared_with_this_path_alone(tmp_path):
    """Where another stage takes the forget stage's place, each path has a retrained model of its own: here only p=4's is there."""
    study = write_full_study(tmp_path / "demo", seeds=(1,))
    content = json.loads((study / "study.json").read_text())
    [model] = [run for run in content["runs"] if run["tags"].get("retrained")]
    model["tags"]["retrained_of"] = ["inst", "tofu", "math", content["forget"]]
    (study / "study.json").write_text(json.dumps(content))
    rows = measured(study)[1]
    assert {row.path for row in rows if row.quantity == "to retrained"} == {"p=4"}
    levels = [Row(1, "retrained of p=4", "", "label", -3.0, math.nan), Row(1, "p=4", "ga", "label", -0.5, -2.0)]
    assert "| before unlearning | label |" in block("demo", MADE, levels)
    assert "| retrained of p=4 | −3.00 |" in block("demo", MADE, levels)


def test_twins_beside_seeds_by_hand():
    """Between twins: differences 0.3 and 0.1, so √((0.09 + 0.01)/4); between seeds: variance of -2 and -4 is 2. Distances in logarithms."""
    rows = [Row(seed, "p=4", "ga", "label", 0.0, after) for seed, after in ((1, -2.0), (2, -4.0))]
    rows += [Row(1, "p=1", "ga", "label", 0.0, -5.0), Row(1, "p=4", "ga", "to retrained", 1.0, 10.0)]
    other = [Row(1, "p=4", "ga", "label", 0.0, -2.3), Row(2, "p=4", "ga", "label", 0.0, -4.1), Row(1, "p=1", "ga", "label", 0.0, -2.0)]
    twin = [*as_twin([*other[:2], Row(1, "p=4", "ga", "to retrained", 1.0, 20.0), Row(1, "p=4", "ga", "no such quantity", 0.0, 1.0)])]
    found = spread([*rows, *twin], "ga", "label")
    assert found == pytest.approx((math.sqrt(0.1 / 4), 0.3, math.sqrt(2), 2))
    assert spread([*rows, *twin], "ga", "to retrained", log=True).largest == pytest.approx(math.log(2))
    assert spread(rows, "ga", "label") is None
    assert verdicts([*rows, *as_twin(other)], "ga") == (0, 1, 0, 0)
    text = block("demo", {**MADE, "twin": "another way"}, [*rows, *twin])
    assert "| label | GA | 0.16 | 0.3 | 1.4 |" in text
    assert "What rounding does" not in block("demo", MADE, rows)


def test_a_twin_of_some_paths_is_compared_by_these_and_says_so():
    """p=3 fell least, but the twin has p=1 and p=4 only: of these p=4 fell least in both. GA alone was run again."""
    rows = [Row(1, path, "ga", "label", 0.0, after) for path, after in (("p=1", -3.0), ("p=3", -1.0), ("p=4", -2.0))]
    rows += [Row(1, path, "npo", "label", 0.0, -1.0) for path in ("p=1", "p=4")]
    rows += [Row(1, "p=4", "", "label", 0.0, math.nan)]
    twin = [*as_twin([rows[0], rows[2]])]
    assert verdicts([*rows, *twin], "ga") == (1, 1, 0, 0)
    assert described([*rows, *twin], "another way").endswith("equal up to rounding: seed 1; p=1, p=4 under GA alone.")
    assert described([*rows[:3], *as_twin(rows[:3])], "another way").endswith("equal up to rounding: seed 1.")


def test_seeds_of_a_store_that_is_gone_stand_beside_those_measured_now():
    """Rows of both; the head says which commit, processor and how many runs each came from; nothing is counted twice."""
    before = (
        MADE | {"commit": "1111111", "runs": "17 of 25 runs"},
        [Row(1, "p=4", "ga", "label", 0.0, -2.0), Row(1, "p=4", "ga", "twin: label", 0.0, -2.0)],
    )
    now = MADE | {"commit": "2222222", "runs": "25 runs"}, [Row(2, "p=4", "ga", "label", 0.0, -4.0)]
    made, rows = with_earlier(now, before)
    assert made["commit"] == "1111111 and 2222222"
    assert made["processor"] == MADE["processor"]
    assert made["runs"] == "seeds 1: 17 of 25 runs; seeds 2: 25 runs"
    assert [(row.seed, row.quantity) for row in rows] == [(1, "label"), (2, "label")]
    assert "0.00 ± 0.00 → −3.00 ± 12.71" in block("smollm2", made, rows)
    with pytest.raises(ValueError, match="Seed 2 was measured now"):
        with_earlier(now, now)
    with pytest.raises(ValueError, match="8 steps, these in 16"):
        with_earlier(now, (before[0] | {"steps": "8"}, before[1]))


@pytest.mark.parametrize(
    ("said", "named"), [("It is 12. The 6 + 6 problem", True), ("6 + 6 = 11", False), ("It is 112.", False), ("", False)]
)
def test_the_right_number_of_a_sum_counts_wherever_it_stands(said, named):
    assert names_the_answer({"answer": "12", "attempts": [said]}) == named


def test_sums_have_columns_where_they_were_measured():
    made_with = {"commit": "abc", "processor": "a processor", "versions": "python 3", "runs": "1 run", "steps": "8"}
    rows = [Row(1, "p=1", "ga", "label", 0.0, -1.0), Row(1, "p=1", "ga", "to retrained", 2.0, 1.0)]
    further = [Row(1, "p=1", "ga", "sums", 0.75, 0.25), Row(1, "p=1", "ga", "sums named", 0.75, 0.5)]
    assert "sums right" not in block("a", made_with, rows)
    shown = block("a", made_with, [*rows, *further])
    assert shown.count("| sums right | number named |") == 2
    assert "0.75 → 0.25 | 0.75 → 0.50" in shown
