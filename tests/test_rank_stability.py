"""Kendall's tau-b of the objectives' ranking between paths, by hand."""

import math

import pytest
from test_report_study_data import StudyWriter, section_of

from unlearn_lightning.report.sections.rank_stability import RankStability, mean_tau


@pytest.mark.parametrize(
    ("values", "tau"),
    [
        ({"p=1": {"a": 3, "b": 2, "c": 1}, "p=4": {"a": 30, "b": 20, "c": 10}}, 1.0),
        ({"p=1": {"a": 3, "b": 2, "c": 1}, "p=4": {"a": 1, "b": 2, "c": 3}}, -1.0),
        # Of three pairs of objectives two agree and one does not: (2 - 1) / 3.
        ({"p=1": {"a": 3, "b": 2, "c": 1}, "p=4": {"a": 3, "b": 1, "c": 2}}, 1 / 3),
        # A tie on one path: (2 - 0) / sqrt(3 * 2).
        ({"p=1": {"a": 3, "b": 2, "c": 1}, "p=4": {"a": 2, "b": 1, "c": 1}}, 2 / math.sqrt(6)),
        # Three paths: the mean of 1, -1 and -1.
        ({"1": {"a": 1, "b": 2, "c": 3}, "2": {"a": 1, "b": 2, "c": 3}, "3": {"a": 3, "b": 2, "c": 1}}, -1 / 3),
        # What is not known on both paths is left out, and two objectives are too few.
        ({"p=1": {"a": 3, "b": math.nan, "c": 1}, "p=4": {"a": 3, "b": 1, "c": 2}}, math.nan),
        ({"p=1": {"a": 1, "b": 1, "c": 1}, "p=4": {"a": 3, "b": 1, "c": 2}}, math.nan),
        ({"p=1": {"a": 1, "b": 2, "c": 3}}, math.nan),
    ],
)
def test_tau_by_hand(values, tau):
    assert mean_tau(values) == pytest.approx(tau, nan_ok=True)


def test_a_row_per_quantity_over_seeds(tmp_path):
    writer = StudyWriter(tmp_path)
    for seed in (1, 2):
        for p in (1, 4):
            for place, objective in enumerate(("ga", "npo", "wga")):
                fall = place + 1.0 if p == 1 or seed == 1 else 3.0 - place
                writer.unlearn(seed, p, objective, label={0: -0.1, 16: -0.1 - fall})
    (table,) = section_of(RankStability, writer.write()).shown
    assert table.texts() == [["label drop", "0.00 ± 12.71", "3"]]


def test_two_objectives_have_no_ranking(tmp_path):
    writer = StudyWriter(tmp_path)
    for p in (1, 4):
        for objective in ("ga", "npo"):
            writer.unlearn(1, p, objective, label={0: -0.1, 16: -1.0})
    assert section_of(RankStability, writer.write()).shown == []
