"""The report's sections of TOFU's and MUSE's summaries: numbers by hand, and a line for what is missing."""

import math

import pytest
from test_report_study_data import StudyWriter, section_of

from unlearn_lightning.report.sections.forget_quality import ForgetQuality
from unlearn_lightning.report.sections.membership import Membership
from unlearn_lightning.report.sections.model_utility import ModelUtility


def rows_of(section):
    return [
        dict(zip([column.title for column in table.columns], row.cells, strict=True)) for table in section.blocks() for row in table.rows
    ]


def truths(*ratios):
    return [{"id": f"q{i}", "text": "Who?", "log_truth_ratio": ratio} for i, ratio in enumerate(ratios)]


@pytest.fixture
def study(tmp_path):
    return StudyWriter(tmp_path)


def test_forget_quality_before_and_after_against_the_studys_retrained_model(study):
    study.record(study.retrained(1), "forget_truth", 9, {}, truths(3.0, 4.0))
    run = study.unlearn(1, 2, "npo")
    study.record(run, "forget_truth", 0, {}, truths(1.0, 2.0))
    study.record(run, "forget_truth", 5, {}, truths(3.0, 4.0))
    study.record(run, "retain_truth", 5, {}, truths(3.0, 4.0))
    section = section_of(ForgetQuality, study.write())
    (row,) = rows_of(section)
    # Two against two, wholly apart: 2 of 6 ways; then the same.
    assert [one.mean for one in row["p"]] == pytest.approx([1 / 3, 1])
    assert [one.mean for one in row["log10 p"]] == pytest.approx([math.log10(1 / 3), 0])
    assert (row["probe"], row["examples"]) == ("forget_truth", 2)
    assert list(section.problems()) == []


@pytest.mark.parametrize("other", [None, truths(1.0)])
def test_without_a_retrained_model_that_was_measured_alike_there_is_no_forget_quality_and_a_line_says_so(study, other):
    if other:
        study.record(study.retrained(1), "forget_truth", 9, {}, other)
    study.record(study.unlearn(1, 2, "npo"), "forget_truth", 5, {}, truths(3.0, 4.0))
    section = section_of(ForgetQuality, study.write())
    assert rows_of(section) == []
    (problem,) = section.problems()
    assert problem.startswith("No forget quality of seed1/p2/npo: no finished run without the forget stage")
    assert "--against RETRAINED" in problem


def test_what_against_wrote_into_the_record_counts(study):
    metrics = {"forget_truth/forget_quality": 0.01, "forget_truth/log10_forget_quality": -2.0, "forget_truth/forget_quality_n": 40.0}
    study.record(study.unlearn(1, 2, "npo"), "forget_truth", 5, metrics, truths(3.0, 4.0))
    (row,) = rows_of(section_of(ForgetQuality, study.write()))
    assert (row["p"][1].mean, row["log10 p"][1].mean, row["examples"]) == (0.01, -2, 40)


def scores(*values):
    return [{"id": f"x{i}", "text": "", "holdout": holdout, "loss": value, "min_k": value} for i, (holdout, value) in enumerate(values)]


@pytest.mark.parametrize(
    ("theirs", "auc", "privleak"),
    [
        (((False, 2.0), (False, 4.0), (True, 1.0), (True, 3.0)), 1 / 4, -100),
        (((False, 1.0), (False, 2.0), (True, 3.0), (True, 4.0)), 1, None),
    ],
)
def test_membership_beside_the_retrained_model_and_priv_leak_or_why_there_is_none(study, theirs, auc, privleak):
    metrics = {"membership/loss_auc": 1.0, "membership/min_k_auc": 1.0}
    study.record(study.retrained(1), "membership", 9, {}, scores(*theirs))
    study.record(study.unlearn(1, 2, "npo"), "membership", 5, metrics, scores((False, 1.0), (False, 2.0), (True, 3.0), (True, 4.0)))
    section = section_of(Membership, study.write())
    rows = {row["attack"]: row for row in rows_of(section)}
    assert list(rows) == ["loss", "Min-K%", "loss minus the retrained model's"]
    assert (rows["Min-K%"]["AUC"][1].mean, rows["Min-K%"]["retrained"].mean) == (1, auc)
    if privleak is None:
        assert rows["Min-K%"]["PrivLeak (%)"].n == 0
        assert "No PrivLeak of seed1/p2/npo: PrivLeak divides by 1 minus" in next(iter(section.problems()))
    else:
        assert rows["Min-K%"]["PrivLeak (%)"].mean == privleak
        assert list(section.problems()) == []


NINE = {
    "retain": {"probability": 0.5, "log_lik": -0.7}, "retain_answers": {"rouge_l_recall": 0.5, "exact_match": 0.0},
    "retain_truth": {"utility_score": 0.5, "probability": 0.9, "normalised_probability": 0.9},
    "real_authors_truth": {"utility_score": 0.25, "probability": 0.9, "normalised_probability": 0.25},
    "real_authors_answers": {"rouge_l_recall": 0.25}, "world_facts_answers": {"rouge_l_recall": 0.5},
    "world_facts_truth": {"utility_score": 0.5, "probability": 0.9, "normalised_probability": 0.5},
}  # fmt: skip


def write_nine(study, left_out=()):
    run = study.unlearn(1, 2, "npo")
    for probe, values in NINE.items():
        if probe not in left_out:
            study.record(run, probe, 5, {f"{probe}/{name}": value for name, value in values.items()}, [{"id": "a", "text": ""}])
    return section_of(ModelUtility, study.write())


def test_model_utility_is_the_harmonic_mean_of_nine(study):
    section = write_nine(study)
    rows = rows_of(section)
    assert len(rows) == 10
    # Six are 1/2 and three 1/4.
    assert rows[-1]["before → after"][1].mean == pytest.approx(9 / (6 * 2 + 3 * 4))
    assert list(section.problems()) == []


def test_a_missing_one_is_named_and_never_replaced(study):
    section = write_nine(study, left_out=("world_facts_answers", "retain"))
    assert [row["quantity"] for row in rows_of(section)].count("model utility") == 0
    assert list(section.problems()) == [
        "No model utility of seed1/p2/npo: not measured are probability on retain set, ROUGE-L recall on world facts"
    ]


def test_other_runs_with_a_probe_of_the_name_retain_have_no_model_utility(study):
    section = write_nine(study, left_out=[name for name in NINE if name not in ("retain", "retain_answers")])
    assert (rows_of(section), list(section.problems())) == ([], [])
