"""Two studies compared: pairing of rows, differences with their intervals, settings, and where all of it is shown."""

import csv
import io
import math
import re

import pytest
from rich.console import Console
from test_report_study_data import StudyWriter

from unlearn_lightning.records.statistics import Estimate, discoveries, estimate, welch
from unlearn_lightning.records.study_data import load_study
from unlearn_lightning.report import build
from unlearn_lightning.report.section import Material
from unlearn_lightning.report.sections.comparison import by_measure, compare


def write(folder, scores, name="one", settings="lr: 0.1\n"):
    """A study of {(p, objective): forget score of each seed}; its study.yaml is `settings`."""
    writer = StudyWriter(folder, name=name)
    for (p, objective), values in scores.items():
        for seed, score in enumerate(values):
            writer.unlearn(seed, p, objective, phrases={0: 0.0, 2: -score})
    for run in writer.content["runs"]:
        run["key"] = f"{name}-{run['key']}"
    study = writer.write()
    if settings is not None:
        (study / "study.yaml").write_text(f"name: {name}\nstore: {folder}\n{settings}")
    return study


def compared(mine, theirs):
    """The comparison of two study folders, without drawing anything."""
    first, second = (Material(load_study(folder)) for folder in (mine, theirs))
    return compare(first.study, first.rows, second.study, second.rows)


@pytest.fixture
def both(tmp_path):
    mine = write(tmp_path / "a", {(1, "npo"): (3.0, 5.0), (4, "npo"): (1.0, 2.0)}, settings="lr: 0.1\nseeds: [0, 1]\n")
    theirs = write(tmp_path / "b", {(1, "npo"): (1.0, 3.0), (4, "ga"): (2.0,)}, "two", settings="lr: 0.2\nseeds: [0, 1]\nthreads: 1\n")
    return mine, theirs


def test_welch_by_hand():
    # Samples 3, 5 and 1, 3: both have s² = 2, so s²/n = 1 each; se = sqrt(2), ν = (1 + 1)² / (1 + 1) = 2, t(0.975, 2) = 4.30265.
    found = welch(estimate([3.0, 5.0]), estimate([1.0, 3.0]))
    assert found.mean == 2.0
    assert found.half_width == pytest.approx(4.30265 * math.sqrt(2), rel=1e-5)


def test_welch_with_unequal_variances_and_sizes():
    # 0, 2, 4: s²/n = 4/3; 10, 10.6: s²/n = 0.18/2 = 0.09; ν = (4/3 + 0.09)² / ((4/3)²/2 + 0.09²/1) = 2.2585
    first, second = estimate([0.0, 2.0, 4.0]), estimate([10.0, 10.6])
    from scipy.stats import t, ttest_ind

    expected = t.ppf(0.975, 2.2585) * math.sqrt(4 / 3 + 0.09)
    assert welch(first, second).half_width == pytest.approx(expected, rel=1e-4)
    interval = ttest_ind([0.0, 2.0, 4.0], [10.0, 10.6], equal_var=False).confidence_interval(0.95)
    assert (welch(first, second).low, welch(first, second).high) == pytest.approx((interval.low, interval.high))


def test_discoveries_are_those_of_benjamini_and_hochberg():
    samples = [([0.0, 1.0, 2.0], [shift, shift + 0.7, shift + 2.0]) for shift in (0.0, 1.0, 3.0, 9.0, 30.0)]
    from scipy.stats import false_discovery_control, ttest_ind

    p = [ttest_ind(mine, theirs, equal_var=False).pvalue for mine, theirs in samples]
    pairs = [(estimate(mine), estimate(theirs)) for mine, theirs in samples]
    single = (estimate([1.0]), estimate([5.0, 5.1]))
    assert discoveries([single, *pairs]) == [False, *(false_discovery_control(p) <= 0.05)]
    assert discoveries([(estimate([1.0, 1.0]), estimate([2.0, 2.0]))]) == [True], "without any spread every difference is one"
    assert discoveries([]) == []


def test_welch_needs_two_seeds_on_both_sides():
    assert welch(estimate([1.0]), estimate([1.0, 2.0])).text() == "−0.50"
    assert math.isnan(welch(Estimate(math.nan, math.nan, 0), estimate([1.0])).mean)
    assert welch(estimate([2.0, 2.0]), estimate([1.0, 1.0])).half_width == 0.0


def test_rows_are_paired_by_objective_and_stages(both):
    found = compared(*both)
    assert [(pair.path.label, pair.objective, pair.mine is not None, pair.theirs is not None) for pair in found.pairs] == [
        ("p=1", "NPO", True, True), ("p=4", "NPO", True, False), ("p=4", "GA", False, True),
    ]  # fmt: skip
    difference = found.pairs[0].difference("forget_score")
    assert (difference.mean, difference.n) == (2.0, 2)
    assert (difference.low, difference.high) == pytest.approx((2 - 6.08, 2 + 6.08), abs=0.01)
    assert found.notes == [
        "Only in one, under NPO: p=4 (inst → tofu → math → safety).",
        "Only in two, under GA: p=4 (inst → tofu → math → safety).",
    ]


def test_only_settings_that_differ_are_listed(both):
    found = compared(*both)
    assert found.settings.header() == ["setting", "one", "two"]
    assert found.settings.plain() == [["lr", "0.1", "0.2"], ["threads", "–", "1"]]


def test_page_tables_and_terminal_show_the_comparison(both, tmp_path):
    report = build(both[0], tmp_path / "out", against=both[1])
    page, markdown = ((tmp_path / "out" / name).read_text() for name in ("index.html", "table.md"))
    stream = io.StringIO()
    report.print(Console(file=stream, width=80))
    assert "<span>+2.00 ± 6.08</span> <small>4.00 vs 2.00</small>" in page
    assert "| p=1 | NPO | forget score (nats) | 4.00 ± 12.71 | 2.00 ± 12.71 | +2.00 ± 6.08 |" in markdown
    assert "| lr | 0.1 | 0.2 |" in markdown
    assert "+2.00±6.08" in stream.getvalue()
    assert re.search(r"lr +0.1 +0.2", stream.getvalue())
    for text in (page, markdown, " ".join(stream.getvalue().split())):
        assert "Only in two, under GA: p=4 (inst → tofu → math → safety)." in text
    table_lines = stream.getvalue().split("Report:")[0].splitlines()
    assert max(map(len, table_lines)) <= 80


def test_the_csv_has_both_sides_and_the_difference_unrounded(both):
    report = build(both[0], against=both[1])
    first, second, third = csv.DictReader((report.folder / "table.csv").open())
    assert [first[name] for name in ("forget_score", "against_forget_score", "difference_forget_score")] == ["4.0", "2.0", "2.0"]
    assert float(first["difference_forget_score_ci95"]) == pytest.approx(4.30265 * math.sqrt(2), rel=1e-5)
    assert (second["forget_score"], second["against_forget_score"], second["difference_forget_score"]) == ("1.5", "", "")
    assert (third["objective"], third["seeds"], third["against_seeds"], third["forget_score"]) == ("GA", "0", "1", "")


def test_without_against_no_trace_is_left(both):
    build(both[0], against=both[1])
    report = build(both[0])
    assert "against" not in (report.folder / "table.csv").read_text()


def test_a_study_against_itself_shares_its_runs(both):
    found = compared(both[0], both[0])
    assert found.names == (str(both[0]), str(both[0]))
    assert found.notes == ["2 rows rest on the very same runs in both studies: no difference, and no interval."]
    assert by_measure(found).texts()[0][5] == "0.00"
    assert found.settings.rows == []


def test_objectives_that_lack_the_same_paths_share_a_sentence(tmp_path):
    mine = write(tmp_path / "a", {(1, "ga"): (1.0,), (4, "ga"): (1.0,), (4, "npo"): (1.0,)})
    notes = compared(mine, write(tmp_path / "b", {(1, "ga"): (1.0,)}, "two")).notes
    assert notes == ["Only in one, under GA, NPO: p=4 (inst → tofu → math → safety)."]


def test_nothing_in_common_and_no_settings(tmp_path):
    mine, theirs = write(tmp_path / "a", {(1, "npo"): (1.0,)}), write(tmp_path / "b", {(1, "ga"): (1.0,)}, "two", settings=None)
    notes = compared(mine, theirs).notes
    assert notes[0] == "The studies have no path and objective in common."
    assert notes[-1] == "two has no study.yaml, so settings cannot be compared."


def test_what_is_missing_in_the_other_study_is_said(tmp_path):
    writer = StudyWriter(tmp_path / "b", name="two")
    writer.unlearn(1, 1, "npo", status="failed", error="OutOfMemoryError")
    report = build(write(tmp_path / "a", {(1, "npo"): (1.0,)}), against=writer.write())
    assert "In two: seed1/p1/npo failed: OutOfMemoryError" in report.problems
