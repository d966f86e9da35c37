"""The report's numbers, each against one that a reader can redo by hand."""

import math

import pytest
from test_report_study_data import StudyWriter

from unlearn_lightning.records.statistics import (
    Share,
    crossing_step,
    drop,
    drops,
    estimate,
    growth_rate,
    interpolate,
    log_estimate,
    matched_score,
)
from unlearn_lightning.records.study_data import load_study
from unlearn_lightning.report.distances import Distances
from unlearn_lightning.report.outcomes import retention, summarize
from unlearn_lightning.report.sections.between_paths import growth_table
from unlearn_lightning.report.sections.matched import compared_retention, compared_retentions, matched_forgetting, matched_table


def test_estimate_is_the_students_t_interval():
    three = estimate([1.0, 2.0, 3.0])  # s = 1, t(0.975, 2) = 4.3027
    assert three.mean == 2.0
    assert three.n == 3
    assert three.half_width == pytest.approx(4.30265 / math.sqrt(3), rel=1e-5)


def test_estimate_of_one_value_has_no_interval_and_of_none_no_mean():
    assert estimate([1.5]).text() == "1.50"
    assert math.isnan(estimate([1.5]).half_width)
    assert estimate([math.nan]).text() == "–"


def test_missing_values_do_not_count():
    assert estimate([1.0, math.nan, 3.0]).mean == 2.0
    assert estimate([1.0, math.nan, 3.0]).n == 2


def test_text_of_an_estimate():
    assert estimate([-0.001]).text(signed=True) == "0.00"
    assert estimate([-0.25]).text() == "−0.25"
    assert estimate([0.25]).text(1, signed=True) == "+0.2"
    assert estimate([1.0, 1.0]).text(1) == "1.0 ± 0.0"


def test_log_estimate_is_the_geometric_mean():
    mean, low, high = log_estimate([1.0, 100.0])
    assert mean == pytest.approx(10.0)
    assert low * high == pytest.approx(100.0)  # symmetric on the log axis


def test_wilson_interval_at_the_ends_and_in_the_middle():
    z2 = 1.959964**2
    assert Share(4, 4).interval == pytest.approx((4 / (4 + z2), 1.0), abs=1e-6)  # known closed form at n of n
    assert Share(0, 4).interval == pytest.approx((0.0, z2 / (4 + z2)), abs=1e-6)
    low, high = Share(5, 10).interval
    assert low + high == pytest.approx(1.0)
    assert Share(0, 0).interval == (0.0, 1.0)


def test_growth_rate_of_an_exponential_is_its_exponent():
    assert growth_rate({step: 3.0 * math.exp(0.2 * step) for step in (0, 2, 4, 16)}) == pytest.approx(0.2)


def test_growth_rate_is_the_least_squares_slope():
    # log d = 0, 0, 3 at steps 0, 1, 2: slope = sum (s - 1) log d / sum (s - 1)^2 = 3 / 2
    assert growth_rate({0: 1.0, 1: 1.0, 2: math.exp(3)}) == pytest.approx(1.5)
    assert math.isnan(growth_rate({0: 1.0}))
    assert math.isnan(growth_rate({0: 0.0, 2: 1.0}))  # log 0 is left out, and one point has no slope


def test_drop_is_first_minus_last():
    assert drop({0: -1.0, 8: -9.0, 16: -4.0}) == 3.0
    assert drops({0: -1.0, 8: -9.0}) == {0: 0.0, 8: 8.0}
    assert math.isnan(drop({0: -1.0}))


def test_retention_falls_with_a_change_in_either_direction():
    assert retention({0: -1.0, 2: -1.25, 4: -0.5}) == {0: 1.0, 2: 0.75, 4: 0.5}


def test_matched_score_is_the_largest_that_all_reach():
    assert matched_score([{0: 0.0, 2: 4.0, 4: 3.0}, {0: 0.0, 2: 1.0, 4: 2.0}]) == 2.0
    assert math.isnan(matched_score([{0: 0.0, 2: 4.0}, {0: 0.0, 2: -1.0}]))


def test_crossing_step_is_the_first_one():
    score = {0: 0.0, 2: 4.0, 4: 1.0, 6: 5.0}
    assert crossing_step(score, 1.0) == 0.5
    assert crossing_step(score, 4.0) == 2.0
    assert crossing_step(score, 4.5) == 4 + 2 * 3.5 / 4
    assert math.isnan(crossing_step(score, 6.0))


def test_interpolation_stays_between_measured_steps():
    assert interpolate({0: 0.8, 16: 0.4}, 4.0) == pytest.approx(0.7)
    assert math.isnan(interpolate({0: 0.8, 16: 0.4}, 17.0))
    assert math.isnan(interpolate({}, 0.0))


def test_distance_to_retrained_uses_its_last_record_and_the_same_seed(tmp_path):
    writer = StudyWriter(tmp_path)
    writer.retrained(1, {"a": [0.0, 0.0], "b": [0.0]})
    writer.retrained(2, {"a": [7.0, 7.0], "b": [7.0]})
    writer.unlearn(1, 4, "npo", vectors={0: {"a": [1.0, 2.0], "b": [3.0]}, 2: {"a": [0.0, 0.0], "b": [2.0]}})
    study = load_study(writer.write())
    run = study.finished("unlearn")[0]
    assert Distances(study).to_retrained(run) == {0: (1 + 4 + 9) / 2, 2: 4 / 2}


def test_growth_rates_are_those_to_the_retrained_model_and_between_paths(tmp_path):
    # p=1: squared distance to retrained e^(0.2 step); p=4 starts three as far, and their difference 2 e^(0.1 step) has the same rate.
    writer = StudyWriter(tmp_path)
    writer.retrained(1, {"a": [0.0]})
    for p, far in {1: 1.0, 4: 3.0}.items():
        writer.unlearn(1, p, "npo", vectors={step: {"a": [far * math.exp(0.1 * step)]} for step in (0, 2, 4)})
    study = load_study(writer.write())
    table = growth_table(study, Distances(study))
    assert table.texts() == [["p=1 | retrained model", "+0.200"], ["p=4 | retrained model", "+0.200"], ["p=1 | p=4", "+0.200"]]
    assert [row[1:] for row in table.plain()] == [[pytest.approx(0.2, rel=1e-12), None, 1]] * 3


def test_path_distances_are_taken_at_equal_steps_within_objective_and_seed(tmp_path):
    writer = StudyWriter(tmp_path)
    writer.unlearn(1, 1, "npo", vectors={0: {"a": [0.0]}, 2: {"a": [1.0]}, 4: {"a": [9.0]}})
    writer.unlearn(1, 4, "npo", vectors={0: {"a": [2.0]}, 2: {"a": [4.0]}})
    writer.unlearn(2, 4, "npo", vectors={0: {"a": [50.0]}})
    writer.unlearn(1, 4, "ga", vectors={0: {"a": [70.0]}})
    study = load_study(writer.write())
    distances = Distances(study)
    assert distances.between_paths("NPO", *study.paths) == [{0: 4.0, 2: 9.0}]
    assert distances.between_paths("GA", *study.paths) == []


def test_vectors_of_different_lengths_are_a_problem_not_an_error(tmp_path):
    writer = StudyWriter(tmp_path)
    writer.retrained(1, {"a": [0.0, 0.0]})
    writer.unlearn(1, 4, "npo", vectors={0: {"a": [1.0]}})
    study = load_study(writer.write())
    distances = Distances(study)
    assert distances.to_retrained(study.finished("unlearn")[0]) == {}
    assert len(distances.problems) == 1
    assert "'a'" in distances.problems[0]


def test_the_row_of_a_path_holds_every_measure(tmp_path):
    writer = StudyWriter(tmp_path)
    writer.retrained(1, {"a": [0.0]})
    writer.unlearn(
        1, 4, "npo", label={0: -1.0, 2: -3.0}, phrases={0: -2.0, 2: -2.5}, margin={0: 6.0, 2: 1.0}, tofu={0: -1.0, 2: -0.9},
        accuracy={0: 0.75, 2: 0.5}, vectors={0: {"a": [2.0]}, 2: {"a": [1.0]}},
    )  # fmt: skip
    study = load_study(writer.write())
    [row] = summarize(study, Distances(study))
    assert {measure: round(value.mean, 9) for measure, value in row.values.items()} == {
        "forget_score": 0.5, "label_drop": 2.0, "retention": 0.9, "accuracy_before": 0.75, "accuracy_after": 0.5, "accuracy_change": -0.25,
        "distance_before": 4.0, "distance_after": 1.0, "margin_before": 6.0,
    }  # fmt: skip


def test_the_slowest_path_has_the_lowest_mean_forget_score(tmp_path):
    writer = StudyWriter(tmp_path)
    for p, scores in {1: (3.0, 1.0), 4: (1.0, 2.0)}.items():
        for seed, score in enumerate(scores):
            writer.unlearn(seed, p, "npo", phrases={0: 0.0, 2: -score})
    study = load_study(writer.write())
    assert [(row.path.p, row.slowest) for row in summarize(study, Distances(study))] == [(1, False), (4, True)]


def test_matched_forgetting_by_hand(tmp_path):
    # p=1 forgets 1 nat per step, p=4 a quarter: both reach 1 nat, p=1 at step 1, p=4 at step 4.
    writer = StudyWriter(tmp_path)
    writer.unlearn(1, 1, "npo", phrases={0: 0.0, 4: -4.0}, tofu={0: -1.0, 4: -1.4}, accuracy={0: 0.8, 4: 0.4})
    writer.unlearn(1, 4, "npo", phrases={0: 0.0, 4: -1.0}, tofu={0: -1.0, 4: -1.2}, accuracy={0: 0.8, 4: 0.7})
    first, last = matched_forgetting(load_study(writer.write()))
    assert (first.score.mean, first.step.mean, last.step.mean) == (1.0, 1.0, 4.0)
    assert first.retention.mean == pytest.approx(0.9)
    assert last.retention.mean == pytest.approx(0.8)
    assert first.accuracy_change.mean == pytest.approx(-0.1)
    assert last.accuracy_change.mean == pytest.approx(-0.1)


@pytest.mark.parametrize(
    ("measured", "step", "read"),
    [
        ({0: 0.8, 16: 0.4}, 1.0, math.nan),
        ({0: 0.8, 16: 0.4}, 15.5, math.nan),
        ({0: 0.8, 16: 0.4}, 0.0, 0.8),
        ({0: 0.8, 16: 0.4}, 16.0, 0.4),
        ({0: 0.8, 8: 0.6, 16: 0.4}, 8.0, 0.6),
        ({0: 0.8, 8: 0.6, 16: 0.4}, 7.5, math.nan),
        ({0: 0.8, 2: 0.6, 16: 0.4}, 1.5, 0.65),
        ({0: 0.8, 4: 0.4, 16: 0.4}, 1.0, 0.7),  # twice as rarely as the score is still near
        ({0: 0.8, 5: 0.3, 16: 0.4}, 1.0, math.nan),
        ({0: 0.8, 4: math.nan, 16: 0.4}, 1.0, math.nan),
        ({}, 1.0, math.nan),
    ],
)
def test_what_was_not_measured_near_a_step_has_no_value_there(measured, step, read):
    score = {step: 0.5 * step for step in range(0, 17, 2)}
    assert interpolate(measured, step, score) == pytest.approx(read, nan_ok=True)


def test_equal_forgetting_invents_no_number(tmp_path):
    """The accuracy is known at both ends, the retention at every other measurement of the score, and one path ends where it is matched."""
    writer = StudyWriter(tmp_path)
    for p, speed in {1: 1.0, 4: 0.25}.items():
        score = {step: -speed * step for step in range(0, 17, 2)}
        tofu = {step: -1.0 - 0.01 * step for step in range(0, 17, 4)}
        writer.unlearn(1, p, "npo", phrases=score, tofu=tofu, accuracy={0: 0.8, 16: 0.4})
    study = load_study(writer.write())
    fast, slow = matched_forgetting(study, at=3.0)
    assert (fast.step.mean, slow.step.mean) == (3.0, 12.0)
    assert (fast.retention.mean, slow.retention.mean) == (pytest.approx(0.97), pytest.approx(0.88))
    assert [row.accuracy_change.text() for row in (fast, slow)] == ["–", "–"]
    assert [row[-3:] for row in matched_table([fast, slow]).plain()] == [[None, None, 0]] * 2
    at_the_end = matched_forgetting(study)  # 4 nats: the slow path's last step
    assert at_the_end[1].accuracy_change.mean == pytest.approx(-0.4)
    assert math.isnan(at_the_end[0].accuracy_change.mean)


def test_the_number_that_trials_compare_by_is_not_invented(tmp_path):
    writer = StudyWriter(tmp_path)
    score = {step: -0.5 * step for step in range(0, 17, 2)}
    writer.unlearn(1, 1, "npo", phrases=score, tofu={0: -1.0, 16: -1.8})
    writer.unlearn(1, 4, "npo", phrases=score, tofu={0: -1.0, 2: -1.2, 16: -1.8})
    writer.unlearn(2, 4, "npo", phrases={0: 0.0, 16: -0.25}, tofu={0: -1.0, 16: -1.1})  # never gets there: 0.9 - 0.5
    study = load_study(writer.write())
    found = {"seed1/p1/npo": math.nan, "seed1/p4/npo": 0.9, "seed2/p4/npo": 0.4}
    assert compared_retentions(study, 0.5) == pytest.approx(found, nan_ok=True)
    assert compared_retention(study, 0.5) == pytest.approx(0.65)
