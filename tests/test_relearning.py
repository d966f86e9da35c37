"""Relearning: the tree behind unlearned and retrained models, steps and ratios by hand, a real study, and its section of the report."""

import io
import math
import re
from pathlib import Path

import pytest
import torch
import yaml
from forked import Forked
from rich.console import Console
from study_runs import fit, weights
from test_backbone import saved_base
from test_killed_runs import everything, in_a_checkpoints_write, killed
from test_report_study_data import StudyWriter
from test_study import config_of, small, tree

from unlearn_lightning.main import main
from unlearn_lightning.records import is_finished, read_records, read_study
from unlearn_lightning.records.relearning import (
    Ratio,
    Steps,
    mean_ratio,
    relearning_robustness,
    robustness_ratio,
    steps_to_relearn,
)
from unlearn_lightning.report.report import build
from unlearn_lightning.study.plan_view import print_plan
from unlearn_lightning.study.relearning import read_relearning

NAN = math.nan


@pytest.mark.parametrize(
    ("level", "back", "steps"),
    [
        ({0: -7.0, 1: -3.0, 2: -0.2, 3: -0.1}, -0.2, Steps(2)),  # a tie with the level is back
        ({0: -7.0, 5: -3.0, 10: -0.1}, -1.0, Steps(10)),  # between 5 and 10 it was back earlier, which nobody measured
        ({0: -0.1, 1: -5.0}, -0.2, Steps(0)),  # it was never away
        ({0: -7.0, 1: -0.1, 2: -9.0}, -0.2, Steps(1)),  # back once is back
        ({0: -7.0, 4: -3.0}, -0.2, Steps(4, censored=True)),
        ({0: -7.0}, -0.2, Steps(0, censored=True)),
        ({0: -7.0, 1: NAN, 2: math.inf}, -0.2, Steps(0, censored=True)),  # what is no finite number is neither back nor measured
        ({1: NAN}, -0.2, None),
        ({}, -0.2, None),
    ],
)
def test_the_first_measured_step_at_which_it_is_back(level, back, steps):
    assert steps_to_relearn(level, back) == steps


def test_a_censored_number_says_so():
    assert [one.text for one in (Steps(5), Steps(24, censored=True))] == ["5", "> 24"]


@pytest.mark.parametrize(
    ("unlearned", "retrained", "ratio"),
    [
        (Steps(3), Steps(12), Ratio(0.25)),
        (Steps(12), Steps(12), Ratio(1.0)),
        (Steps(0), Steps(12), Ratio(0.0)),
        (Steps(24, True), Steps(12), Ratio(2.0, "at least")),
        (Steps(6), Steps(24, True), Ratio(0.25, "at most")),
        (Steps(0), Steps(24, True), Ratio(0.0)),
        (Steps(24, True), Steps(24, True), Ratio(NAN, "unknown")),
        (Steps(3), Steps(0), Ratio(NAN)),
        (Steps(24, True), Steps(0), Ratio(NAN)),
        # A single measurement before step 1 says nothing of either.
        (Steps(0, True), Steps(0, True), Ratio(NAN, "unknown")),
    ],
)
def test_the_robustness_ratio_and_what_it_bounds(unlearned, retrained, ratio):
    found = robustness_ratio(unlearned, retrained)
    assert (found.value, found.bound) == (pytest.approx(ratio.value, nan_ok=True), ratio.bound)


def test_a_mean_of_bounds_is_a_bound_of_the_mean():
    exact, low, high, none = Ratio(0.5), Ratio(2.0, "at least"), Ratio(0.1, "at most"), Ratio(NAN, "unknown")
    assert [(mean.mean, mean.n, bound) for mean, bound in (mean_ratio([exact, Ratio(1.5)]), mean_ratio([exact, low]))] == [
        (1.0, 2, ""), (1.25, 2, "at least"),
    ]  # fmt: skip
    mean, bound = mean_ratio([exact, high, none])
    assert (mean.mean, mean.n, bound) == (pytest.approx(0.3), 2, "at most")
    mean, bound = mean_ratio([low, high])
    assert (mean.n, bound) == (0, "unknown")


@pytest.mark.parametrize(
    ("unlearned", "retrained", "robustness"),
    [
        ({0: 0.1, 4: 0.9}, {0: 0.1, 4: 0.3}, 0.25),  # gains of 0.8 and 0.2
        ({0: 0.1, 2: 0.7, 4: 0.3}, {0: 0.1, 4: 0.9}, 1.0),  # 0.8 / 0.2, cut at 1
        ({0: 0.5, 4: 0.5}, {0: 0.1, 4: 0.9}, 1.0),  # gained nothing
        ({0: 0.5, 4: 0.4}, {0: 0.1, 4: 0.9}, 1.0),
        ({0: 0.1, 4: 0.5}, {0: 0.3, 4: 0.1}, -0.5),
        ({0: 0.1}, {0: 0.1, 4: 0.9}, NAN),
        ({0: 0.1, 4: 0.9}, {}, NAN),
    ],
)
def test_openunlearnings_robustness(unlearned, retrained, robustness):
    assert relearning_robustness(unlearned, retrained) == pytest.approx(robustness, nan_ok=True)


FORGET = {"examples": 4, "steps": 2, "metric": "forget/label_log_lik"}


def test_one_more_run_behind_each_unlearned_and_each_retrained_model_and_no_other_key(corpus, questions, tmp_path):
    asked = {"relearning": {"forget": FORGET, "benign": {"stage": "inst", "steps": 3}}}
    without, more = (tree(small(corpus, questions, **given), tmp_path) for given in ({}, asked))
    assert [run.key for run in without] == [run.key for run in more if run.kind != "relearn"]
    added = [run for run in more if run.kind == "relearn"]
    # Two relearnings behind two objectives on three paths, and behind the one retrained model.
    assert len(added) == len({run.key for run in added}) == 2 * (2 * 3 + 1)
    assert {run.parents[0].kind for run in added} == {"unlearn", "stage"}
    assert [run.parents[0].tags.get("retrained") for run in added if run.parents[0].kind == "stage"] == [True, True]
    forget, benign = (next(run for run in added if run.name == f"seed0/p1/ga/relearn-{name}") for name in ("forget", "benign"))
    assert forget.tags == {"seed": 0, "path": ["safety", "inst", "math"], "p": 1, "objective": "ga", "relearning": "forget"}
    assert forget.config["model"]["class_path"].endswith("StageFineTuning")
    said = {run: (run.config["data"]["init_args"], run.config["trainer"]["max_steps"]) for run in (forget, benign)}
    assert [(data["train_examples"], data["prompt_template"], steps) for data, steps in said.values()] == [
        (4, "safety: {prompt}", 2), (None, "inst: {prompt}", 3),
    ]  # fmt: skip
    # A rate that falls towards the end would make the steps depend on how many there may be.
    assert forget.config["model"]["init_args"]["lr_scheduler"]["init_args"] == {"warmup": 0.0, "decay": 0.0}
    (probe,) = forget.config["trainer"]["callbacks"]
    assert (probe["class_path"].rpartition(".")[2], probe["init_args"]["every_n_steps"]) == ("ForgetLikelihood", 1)


def test_settings_of_its_own_come_last(corpus, questions, tmp_path):
    own = {
        **FORGET, "every_n_steps": 2, "probes": ["retain"], "data": {"init_args": {"batch_size": 3}},
        "model": {"init_args": {"optimizer": {"init_args": {"lr": 7e-4}}, "lr_scheduler": {"class_path": "Cosine"}}},
    }  # fmt: skip
    settings = small(corpus, questions, order=[], relearning={"forget": own})
    settings["objectives"].pop("npo")
    run = next(run for run in tree(settings, tmp_path) if run.kind == "relearn")
    arguments = run.config["model"]["init_args"]
    assert arguments["optimizer"]["init_args"]["lr"] == 7e-4
    assert arguments["lr_scheduler"]["class_path"].endswith("Cosine")
    assert run.config["data"]["init_args"]["batch_size"] == 3
    assert [probe["init_args"]["every_n_steps"] for probe in run.config["trainer"]["callbacks"]] == [2, 0]


@pytest.mark.parametrize(
    ("given", "why"),
    [
        ({"example": 4}, "relearning.forget has no setting example; it has "),
        (16, "relearning.forget is a mapping"),
        ({"examples": 0}, "relearning.forget.examples is a whole number from 1, got 0"),
        ({"steps": None}, "relearning.forget.steps is a whole number from 1, got None"),
        ({"steps": 2.5}, "relearning.forget.steps is a whole number from 1, got 2.5"),
        ({"tolerance": -0.1}, "relearning.forget.tolerance is a number from 0"),
        ({"tolerance": NAN}, "relearning.forget.tolerance is a number from 0"),
        ({"tolerance": "x"}, "relearning.forget.tolerance is a number from 0"),
        ({"metric": "label_log_lik"}, "relearning.forget.metric is PROBE/QUANTITY"),
        ({"metric": "forget/label_drop"}, "the change since a run's own start"),
        ({"metric": "rouge/recall"}, r"measured by the probes \['rouge'\], but `probes` has"),
        ({"probes": ["nobody"]}, r"measured by the probes \['nobody'\]"),
        ({"stage": "nowhere"}, "names the stage 'nowhere', but `stages` has"),
        ({"trainer": {"max_steps": 4}}, "say how long it lasts by `steps`"),
        ({"trainer": {"max_epochs": 4}}, "say how long it lasts by `steps`"),
    ],
)
def test_what_has_no_meaning_is_refused_before_anything_is_planned(corpus, questions, given, why):
    with pytest.raises(ValueError, match=why):
        config_of(small(corpus, questions, relearning={"forget": given}))


def test_the_plan_shows_and_counts_them(corpus, questions, tmp_path):
    settings = small(corpus, questions, order=["inst"], positions=[2], relearning={"forget": FORGET})
    shown = io.StringIO()
    runs = tree(settings, tmp_path / "store")
    costs = print_plan(config_of(settings), runs, tmp_path / "study", Console(file=shown, width=160))
    assert "2 unlearning runs, 3 relearning runs, 1 base training;" in shown.getvalue()
    assert "seed0/p2/ga/relearn-forget: relearn, 2 steps" in shown.getvalue()
    cost = costs["seed0/p2/ga/relearn-forget"]
    assert (cost.examples, cost.steps) == (4, 2)


def test_adapters_are_stacked_as_unlearning_left_them_and_a_killed_run_ends_as_if_nothing_had_happened(
    make_backbone, corpus, questions, tmp_path
):
    settings = small(corpus, questions, relearning={"forget": {**FORGET, "steps": 6}}, order=["inst"], positions=[2], base=None)
    settings["backbone"] = {"model": saved_base(make_backbone, tmp_path / "base"), "lora": {"rank": 2, "alpha": 4}}
    settings["objectives"].pop("npo")
    settings["common"]["checkpoint_every_n_steps"] = 1
    runs = {run.name: run for run in tree(settings, tmp_path / "store")}
    for run in runs.values():
        fit(run.config)
        assert is_finished(run.folder)
    again, never = runs["seed0/p2/ga/relearn-forget"], runs["seed0/inst/relearn-forget"]
    parent = again.parents[0]
    places = [run.config["model"]["init_args"]["backbone"]["adapter"] for run in (again, parent, never)]
    assert places == [[places[1], str(parent.folder / "adapter")], places[1], str(never.parents[0].folder / "adapter")]
    # It starts as the model that unlearning ended with, and learns the label again.
    ended, levels = (read_records(run.folder, "forget") for run in (parent, again))
    value = {step: record["metrics"]["forget/label_log_lik"] for step, record in levels.items()}
    assert value[0] == pytest.approx(ended[max(ended)]["metrics"]["forget/label_log_lik"], abs=1e-5)
    assert list(value) == [0, 1, 2, 3, 4, 5, 6]
    assert value[6] > value[0]
    broken = {**again.config, "run_folder": str(tmp_path / "broken")}

    def work():
        in_a_checkpoints_write()
        fit(broken)

    killed(work)
    assert not is_finished(tmp_path / "broken")
    fit(broken)
    assert everything(tmp_path / "broken") == everything(again.folder)
    for key, tensor in weights(again.folder).items():
        assert torch.equal(weights(tmp_path / "broken")[key], tensor), key


def test_a_real_study_relearns_and_the_second_call_finds_all_done(corpus, questions, tmp_path):
    settings = small(corpus, questions, order=["inst"], relearning={"forget": FORGET}, threads=1)
    settings["objectives"].pop("npo")
    file, study = tmp_path / "study.yaml", tmp_path / "study"
    file.write_text(yaml.safe_dump(settings))
    call = ["study", str(file), "--store", str(tmp_path / "store"), "--folder", str(study), "--jobs", "1"]
    process = Forked(lambda: main(call), tmp_path)
    assert process.wait() == 0, process.stderr()
    content = read_study(study)
    assert content["relearning"] == {
        "forget": {"metric": "forget/label_log_lik", "tolerance": 0.1, "steps": 2, "stage": None, "examples": 4}
    }
    runs = [run for run in content["runs"] if run["kind"] == "relearn"]
    assert len(runs) == 3
    assert all(is_finished(study / run["folder"]) for run in runs)
    (table,) = (table for section in build(study).sections for table in section.tables if table.name == "relearning")
    assert len(table.rows) == 2
    # Every one was measured at steps 0, 1 and 2, so a number of steps is known for each, and for the retrained model.
    assert all(row.cells[3].n == row.cells[5].n == 1 for row in table.rows)
    again = Forked(lambda: main(call), tmp_path)
    assert again.wait() == 0
    assert "0 runs executed" in again.stdout()


def written(folder: Path, curves, metric="forget/label_log_lik", tolerance=0.1, seeds=(1, 2)):
    """Two paths of GA; `curves` gives each seed's levels of p=1, p=4 and the retrained model."""
    writer = StudyWriter(folder)
    writer.content["relearning"] = {"forget": {"metric": metric, "tolerance": tolerance, "steps": 3}}

    def relearn(name, parent, tags, curve):
        place = writer.run(f"{name}/relearn-forget", "relearn", {**tags, "relearning": "forget"})
        writer.content["runs"][-1]["parents"] = [parent]
        for step, value in curve.items():
            writer.record(place, "forget", step, {metric: value}, [])

    for seed in seeds:
        writer.retrained(seed)
        relearn(
            f"seed{seed}/inst-tofu-math", f"seed{seed}-inst-tofu-math", {"seed": seed, "path": ["inst", "tofu", "math"]}, curves[seed][2]
        )
        for p, curve in zip((1, 4), curves[seed], strict=False):
            writer.unlearn(seed, p, "ga", label={0: -0.1, 16: curve[0]})
            relearn(f"seed{seed}/p{p}/ga", f"seed{seed}-p{p}-ga", {"seed": seed, "path": [], "p": p, "objective": "ga"}, curve)
    return writer.write()


def test_the_section_by_hand(tmp_path):
    never = {0: -8.0, 1: -4.0, 2: -0.15, 3: -0.1}
    slow, quick = {0: -5.0, 1: -2.0, 2: -1.0, 3: -0.2}, {0: -2.0, 1: -0.2, 2: -0.1, 3: 0.0}
    study = written(tmp_path, {1: (slow, quick, never), 2: ({**slow, 3: -0.9}, {**quick, 1: -1.0}, never)})
    made = build(study)
    tables = {table.name: table for section in made.sections for table in section.tables}
    first, last = tables["relearning"].rows
    # p=1: back at step 3 of 3 in seed 1, not back in seed 2; the retrained model takes 2: ratios 1.5, and at least 1.5.
    lost, steps, gone, never_steps, never_gone, ratio, bound, robust = first.cells[2:]
    assert (lost.mean, steps.mean, gone.hits, gone.n, never_steps.mean, never_gone.hits) == (pytest.approx(4.9), 3.0, 1, 2, 2.0, 0)
    assert (ratio.mean, bound) == (1.5, "at least")
    # Gains 7.9 over 4.8 and over 4.1: both cut at 1.
    assert robust.mean == 1.0
    # p=4: steps 1 and 2, ratios 0.5 and 1.
    assert (last.cells[3].mean, last.cells[7].mean, last.cells[8]) == (1.5, 0.75, "")
    (row,) = tables["relearning_first"].rows
    assert (row.cells[2].hits, row.cells[2].n, row.cells[3], row.cells[4]) == (2, 2, 0, "1 in 2")
    (chart,) = (chart for section in made.sections for chart in section.charts if chart.key == "relearning_forget")
    lines = {line.name: line for line in chart.panels[0].lines}
    assert lines["retrained model"].y == list(never.values())
    assert lines["p=4"].y == [-2.0, pytest.approx(-0.6), -0.1, 0.0]


def test_a_shared_first_place_is_no_hit_and_what_is_missing_is_said(tmp_path):
    back = {0: -2.0, 1: -0.1}
    study = written(tmp_path, {1: (back, back, {}), 2: ({0: -2.0, 1: -1.0}, {0: -2.0, 1: -1.5}, {})})
    made = build(study)
    tables = {table.name: table for section in made.sections for table in section.tables}
    (row,) = tables["relearning_first"].rows
    assert (row.cells[2].hits, row.cells[2].n, row.cells[3]) == (0, 2, 2)
    assert [row.cells[7].n for row in tables["relearning"].rows] == [0, 0]
    said = [line for section in made.sections for line in section.problems()]
    assert any(re.search("4 unlearned models have no retrained model beside them, and so no ratio", line) for line in said)


def test_studies_of_before_have_no_such_section(tmp_path):
    writer = StudyWriter(tmp_path)
    writer.unlearn(1, 4, "ga", label={0: -0.1, 16: -2.0})
    assert not any(table.name.startswith("relearning") for section in build(writer.write()).sections for table in section.tables)


def test_an_entry_says_what_the_report_needs():
    one = read_relearning("forget", {"examples": 4, "metric": "forget/probability", "tolerance": 0})
    assert one.entry() == {"metric": "forget/probability", "tolerance": 0, "steps": 16, "stage": None, "examples": 4}
