"""The recency statistic and its controls, with curves to redo by hand."""

import math

import pytest
from test_report_study_data import StudyWriter, section_of

from unlearn_lightning.records.statistics import Share
from unlearn_lightning.records.study_data import load_study
from unlearn_lightning.report.sections.recency import MEASURED, OWN, RecencyEffect, drops_from_equal_start, recency


def test_recency_counts_complete_seeds_only(tmp_path):
    writer = StudyWriter(tmp_path)
    last_drop = {1: 0.1, 2: 5.0, 3: 2.0}  # seed 1: last is smallest; seed 2: it is not; seed 3: a tie
    for seed, value in last_drop.items():
        writer.unlearn(seed, 1, "npo", label={0: 0.0, 2: -2.0})
        writer.unlearn(seed, 4, "npo", label={0: 0.0, 2: -value})
    writer.unlearn(4, 4, "npo", label={0: 0.0, 2: -0.1})
    writer.unlearn(4, 1, "npo", status="failed")
    [found] = recency(load_study(writer.write()))
    assert found.share == Share(1, 3, left_out=1)


def test_from_an_equal_start_by_hand():
    # Path 0 starts at the level -2; path 1 reaches it half way between steps 4 and 6, which leaves it 3 steps.
    curves = {0: {0: -2.0, 2: -4.0, 4: -5.0, 8: -9.0}, 1: {0: 0.0, 4: -1.0, 6: -3.0, 8: -8.0}}
    assert drops_from_equal_start(curves) == {0: pytest.approx(2.5), 1: pytest.approx(6.0)}


@pytest.mark.parametrize("slow", [{0: 0.0, 8: -1.9}, {0: 0.0, 8: -2.0}, {}], ids=["never there", "there at its last step", "unmeasured"])
def test_paths_without_a_common_level_are_not_compared(slow):
    assert all(map(math.isnan, drops_from_equal_start({0: {0: -2.0, 8: -9.0}, 1: slow}).values()))


def test_an_equal_start_is_not_read_from_measurements_far_apart():
    fine = {step: -2.0 - step for step in range(0, 17, 2)}
    assert all(map(math.isnan, drops_from_equal_start({0: fine, 1: {0: 0.0, 16: -8.0}}).values()))
    assert not any(map(math.isnan, drops_from_equal_start({0: fine, 1: {step: -0.5 * step for step in range(0, 17, 4)}}).values()))


def test_saturation_is_told_apart_from_slowness(tmp_path):
    """In the first seed p=4 loses least of its likelihood, but most of its margin, and is the faster once it starts where p=1 does."""
    writer = StudyWriter(tmp_path)
    writer.unlearn(1, 1, "npo", label={0: -1.0, 4: -1.5, 8: -4.0}, phrases={0: 0.0, 8: -2.0}, margin={0: 0.0, 8: -4.0})
    writer.unlearn(1, 4, "npo", label={0: 0.0, 4: -1.0, 8: -2.5}, phrases={0: 0.0, 8: -3.0}, margin={0: 9.0, 8: 2.0})
    # In all p=1 falls by 3 and p=4 by 2.5; in four steps from -1, by 0.5 and 1.5. In the next seed p=4 never comes down to -9.
    writer.unlearn(2, 1, "npo", label={0: -9.0, 8: -12.0}, phrases={0: 0.0, 8: -2.0}, margin={0: 0.0, 8: -9.0})
    writer.unlearn(2, 4, "npo", label={0: 0.0, 8: -1.0}, phrases={0: 0.0, 8: -1.0}, margin={0: 9.0, 8: 7.0})
    study = load_study(writer.write())
    found = {measure: recency(study, measure)[0] for measure in MEASURED}
    assert {measure: one.share for measure, one in found.items()} == {
        "label_drop": Share(2, 2), "forget_score": Share(1, 2), "paraphrase_drop": Share(1, 2), "margin_drop": Share(1, 2),
        "matched_drop": Share(0, 1, left_out=1),
    }  # fmt: skip
    low, high = Share(2, 2).interval
    [table] = section_of(RecencyEffect, study.folder).tables
    assert table.texts()[0][1] == f"2 of 2 ({low:.0%} to {high:.0%})"
    assert table.texts()[0][-1].endswith(", 1 left out")


def test_a_measure_that_is_absent_is_a_dash_and_counts_as_left_out(tmp_path):
    writer = StudyWriter(tmp_path)
    for p in (1, 4):
        writer.unlearn(1, p, "npo", label={0: 0.0, 8: -9.0 / p})
    section = section_of(RecencyEffect, writer.write())
    assert section.tables[0].texts()[0][:3] == ["NPO", "1 of 1 (21% to 100%)", "–, 1 left out"]
    assert section.summary()["recency_measures"]["label_drop"]["NPO"]["hits"] == 1


def responses(writer, seed, p, curve, probe="forget", **others):
    folder = writer.unlearn(seed, p, "npo")
    for step, value in curve.items():
        writer.record(folder, probe, step, {f"{probe}/log_lik": value, **others}, [])


def test_without_a_label_the_forget_sets_own_responses_count(tmp_path):
    """From -1 on p=1 falls by 2 in four steps and p=4, which is the slower in all, by 3: where both start equal, it is the faster."""
    writer = StudyWriter(tmp_path)
    for seed in (1, 2):
        responses(writer, seed, 1, {0: -1.0, 4: -3.0, 8: -6.0})
        responses(writer, seed, 4, {0: 0.0, 4: -1.0, 8: -4.0 if seed == 1 else -6.0})
    section = section_of(RecencyEffect, writer.write())
    [table] = section.tables
    assert [column.title for column in table.columns][1:] == [measured.title for measured in OWN.values()]
    assert section.summary()["recency"]["NPO"] == {"last_is_slowest": 1, "seeds": 2}
    assert section.summary()["recency_measures"]["matched_response_drop"]["NPO"]["hits"] == 0
    assert "forgot its responses least in only 1 of 2 comparisons" in section.verdict().headline
    assert section.sentences()[0].startswith("By objective")


def test_a_label_goes_before_responses(tmp_path):
    writer = StudyWriter(tmp_path)
    for p in (1, 4):
        responses(writer, 1, p, {0: 0.0, 8: -float(p)}, **{"forget/label_log_lik": 1.0 / p})
    section = section_of(RecencyEffect, writer.write())
    assert list(section.measures) == list(MEASURED)
    assert "forgot the label least" in section.verdict().headline


def test_the_responses_of_another_probe_are_not_the_forget_sets(tmp_path):
    writer = StudyWriter(tmp_path)
    for p in (1, 4):
        responses(writer, 1, p, {0: 0.0, 8: -float(p)}, "people")
    section = section_of(RecencyEffect, writer.write())
    assert section.verdict().headline.startswith("No probe called forget measured a label")
    assert section.shown == []


def test_a_single_path_has_no_such_table(tmp_path):
    writer = StudyWriter(tmp_path)
    writer.unlearn(1, 4, "npo", label={0: 0.0, 8: -1.0})
    section = section_of(RecencyEffect, writer.write())
    assert section.shown == []
    assert "single path" in section.verdict().headline
