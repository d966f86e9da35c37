"""Figures that set variants of an objective side by side, and the ticks of their axes."""

import pytest
from test_report_study_data import StudyWriter, section_of

from unlearn_lightning.records.study_data import load_study
from unlearn_lightning.report.chart import Chart, Line, Panel, log_ticks
from unlearn_lightning.report.sections.forgetting import Forgetting
from unlearn_lightning.report.variants import variants


def write_variants(folder, runs):
    """A study with one run on p=1 and p=4 for each (objective, extra tags); the label of p falls by p nats."""
    writer = StudyWriter(folder)
    for objective, tags in runs:
        for p in (1, 4):
            name = "-".join([objective, *map(str, tags.values())])
            writer.unlearn(1, p, name, label={0: 0.0, 2: -1.0 * p}, more_tags={**tags, "objective": objective})
    return writer.write()


def made(folder):
    return {chart.key: chart for chart in section_of(Forgetting, folder).charts}


def test_learning_rates_stand_in_columns_by_size_and_objectives_in_rows(tmp_path):
    folder = write_variants(tmp_path, [(objective, {"lr": lr}) for objective in ("ga", "npo") for lr in (5e-5, 1e-6, 5e-6)])
    chart = made(folder)["label_by_lr"]
    assert chart.columns == 3
    assert [panel.title for panel in chart.panels] == [
        f"{objective} · lr={lr}" for objective in ("GA", "NPO") for lr in ("1e-06", "5e-06", "5e-05")
    ]
    assert [(line.name, line.y) for line in chart.panels[0].lines] == [("p=1", [0.0, -1.0]), ("p=4", [0.0, -4.0])]


def test_the_same_panels_are_not_drawn_twice(tmp_path):
    folder = write_variants(tmp_path / "all", [("npo", {"schedule": schedule}) for schedule in ("wsd", "cosine")])
    assert "label" not in made(folder)
    folder = write_variants(tmp_path / "some", [("ga", {}), *(("npo", {"schedule": schedule}) for schedule in ("wsd", "cosine"))])
    assert {"label", "label_by_schedule"} <= made(folder).keys()


def test_without_extra_tags_there_is_no_such_figure(tmp_path):
    assert [key for key in made(write_variants(tmp_path, [("ga", {}), ("npo", {})])) if key.startswith("label")] == ["label"]


def test_two_tags_make_two_figures_and_the_untagged_run_comes_first(tmp_path):
    study = load_study(write_variants(tmp_path, [("npo", {"lr": 1e-6}), ("npo", {}), ("npo", {"schedule": "cosine"})]))
    assert variants(study, "lr") == ({"NPO": {"1e-06": "NPO · lr=1e-06", "": "NPO"}}, ["", "1e-06"])
    assert variants(study, "schedule")[1] == ["", "cosine"]


def test_a_variant_that_was_not_run_leaves_its_place_in_the_grid(tmp_path):
    folder = write_variants(tmp_path, [("ga", {"lr": 1e-6}), ("ga", {"lr": 1e-5}), ("npo", {"lr": 1e-5}), ("npo", {"lr": 1e-4})])
    assert [panel.title for panel in made(folder)["label_by_lr"].panels] == [
        "GA · lr=1e-06", "GA · lr=1e-05", "not run", "not run", "NPO · lr=1e-05", "NPO · lr=0.0001",
    ]  # fmt: skip


def test_a_grid_has_one_scale_per_row_and_a_strip_one_for_all():
    panels = [Panel("", [Line("", (0,), [0, 1], [0.0, top])]) for top in (1.0, 2.0, 10.0, 20.0)]
    grid = Chart("", "", "", "", "", panels, columns=2).y_ranges
    assert grid[0] == grid[1] == pytest.approx((-0.12, 2.12))  # 6% of the means' span on either side
    assert grid[2] == grid[3] == pytest.approx((-1.2, 21.2))
    assert set(Chart("", "", "", "", "", panels).y_ranges) == {grid[3]}


@pytest.mark.parametrize(
    ("low", "high", "ticks"),
    [
        (0.5, 20_000, [1, 10, 100, 1000, 10_000]),
        (90, 1100, [100, 200, 500, 1000]),
        (0.9, 110, [1, 3, 10, 30, 100]),
        (1e-9, 2e4, [1e-9, 1e-7, 1e-5, 1e-3, 1e-1, 1e1, 1e3]),
    ],
)
def test_log_ticks_are_round_and_few(low, high, ticks):
    assert log_ticks(low, high) == pytest.approx(ticks)


@pytest.mark.parametrize(("low", "high"), [(300, 1250), (450, 520), (0.011, 0.093), (1.0, 1.0001)])
def test_log_ticks_stay_inside(low, high):
    ticks = log_ticks(low, high)
    assert 1 <= len(ticks) <= 7 or high / low < 1.01
    assert all(low <= tick <= high for tick in ticks)
