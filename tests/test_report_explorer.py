"""The explorer's data and the tables of what was run."""

from test_report_study_data import StudyWriter

from unlearn_lightning.records.settings import flatten
from unlearn_lightning.records.study_data import load_study
from unlearn_lightning.report import build
from unlearn_lightning.report.sections.explorer import MOST_TEXT, explorer
from unlearn_lightning.report.sections.provenance import config_differences, run_table, totals, versions


def test_examples_that_part_most_come_first_with_the_mean_over_seeds(tmp_path):
    writer = StudyWriter(tmp_path)
    for seed, far in ((1, 3.0), (2, 1.0)):
        writer.unlearn(seed, 1, "npo", vectors={0: {"near": [0.0], "far": [0.0]}, 2: {"near": [0.0], "far": [0.0]}})
        writer.unlearn(seed, 4, "npo", vectors={0: {"near": [0.0], "far": [0.0]}, 2: {"near": [1.0], "far": [far]}})
    found = explorer(load_study(writer.write()))["views"]["predictions"]["NPO"]["0-1"]
    assert [(one["id"], one["gap"]) for one in found] == [("far", (9.0 + 1.0) / 2), ("near", 1.0)]
    assert found[0]["steps"] == [0, 2]
    assert found[0]["curves"] == [[0.0, 5.0]]


def test_label_view_compares_the_last_common_step(tmp_path):
    writer = StudyWriter(tmp_path)
    writer.unlearn(1, 1, "npo", label={0: -0.5, 2: -4.0, 4: -9.0})
    writer.unlearn(1, 4, "npo", label={0: -0.5, 2: -1.0})
    [found] = explorer(load_study(writer.write()))["views"]["label"]["NPO"]["0-1"]
    assert found["gap"] == 3.0
    assert found["curves"] == [[-0.5, -4.0], [-0.5, -1.0]]


def test_math_view_lists_only_problems_that_one_path_solves_more_often(tmp_path):
    writer = StudyWriter(tmp_path)
    for p in (1, 2, 3):  # the writer's p=2 solves the problem, p=1 and p=3 do not
        writer.unlearn(1, p, "npo", accuracy={0: 0.5, 2: 0.5})
    by_pair = explorer(load_study(writer.write()))["views"]["math"]["NPO"]
    assert set(by_pair) == {"0-1", "1-2"}
    assert by_pair["0-1"][0]["shares"] == [0.0, 1.0]


def test_long_texts_do_not_make_a_large_page(tmp_path):
    writer = StudyWriter(tmp_path)
    for p in (1, 2, 3, 4):
        vectors = {step: {f"example-{i}": [float(p * i * step)] for i in range(200)} for step in (0, 2)}
        writer.unlearn(1, p, "npo", vectors=vectors, text="x" * 20_000)
    folder = writer.write()
    assert all(len(text) <= MOST_TEXT for texts in explorer(load_study(folder))["texts"].values() for text in texts)
    assert (build(folder).folder / "index.html").stat().st_size < 2_000_000


def test_flatten_names_nested_settings():
    assert flatten({"model": {"beta": 0.5, "layers": [1, 2]}}) == {"model.beta": "0.5", "model.layers.0": "1", "model.layers.1": "2"}


def test_config_differences_leave_out_seeds_places_and_what_is_the_same(tmp_path):
    writer = StudyWriter(tmp_path)
    for seed in (1, 2):
        for objective, beta in (("ga", 0.1), ("npo", 0.5)):
            writer.unlearn(
                seed, 4, objective, config=f"seed_everything: {seed}\nadapter: /runs/{seed}\nmodel: {{beta: {beta}, rank: 16}}\n"
            )
    table = config_differences(load_study(writer.write()), "unlearn")
    assert table.header() == ["setting", "GA", "NPO"]
    assert table.plain() == [["model.beta", "0.1", "0.5"]]


def test_what_was_run(tmp_path):
    writer = StudyWriter(tmp_path)
    writer.unlearn(1, 1, "npo", seconds=100.0)
    writer.unlearn(1, 4, "npo", seconds=20.0, versions={"torch": "2.14.0"})
    writer.unlearn(1, 3, "npo", status=None)
    study = load_study(writer.write())
    assert totals(study) == "2 unlearn runs finished of 3 planned: 2 min of training on 55,296 tokens, added over runs."
    assert versions(study) == "unlearn_lightning 0.1.0 · torch 2.13.0 (1 run), 2.14.0 (1 run)"
    assert [row[2] for row in run_table(study).plain()] == ["finished", "finished", "missing"]


def test_a_part_that_some_runs_lack_is_one_row_and_classes_go_by_their_last_name(tmp_path):
    writer = StudyWriter(tmp_path)
    probes = "trainer: {callbacks: [{class_path: callbacks.Forget, init_args: {limit: 12, data: {class_path: data.Safety}}}]}\n"
    writer.unlearn(1, 1, "ga", config="model: {class_path: unlearn.objectives.GA, lr: 1.5}\n")
    writer.unlearn(1, 1, "npo", config="model: {class_path: unlearn.objectives.NPO, lr: 2.5}\n" + probes)
    assert config_differences(load_study(writer.write()), "unlearn").plain() == [
        ["model.class_path", "GA", "NPO"], ["model.lr", "1.5", "2.5"], ["trainer", "–", "Forget"],
    ]  # fmt: skip
