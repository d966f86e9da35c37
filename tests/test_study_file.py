"""Study files that build on others, and studies whose paths have names."""

from pathlib import Path

import pytest
import yaml
from jsonargparse import Namespace
from rich.console import Console
from test_study import config_of, small, tree

from unlearn_lightning.main import main
from unlearn_lightning.records import read_study
from unlearn_lightning.records.study_data import load_study
from unlearn_lightning.report import build
from unlearn_lightning.report.distances import Distances
from unlearn_lightning.study.flags import change
from unlearn_lightning.study.local import Local
from unlearn_lightning.study.state import study_states
from unlearn_lightning.study.study_config import StudyConfig
from unlearn_lightning.study.study_file import read_study_file, tell_not_shared
from unlearn_lightning.study.work import Work


def write(folder, **files):
    for name, text in files.items():
        path = folder / name.replace("__", "/")
        path.parent.mkdir(exist_ok=True)
        path.with_suffix(".yaml").write_text(text)
    return folder


def test_a_file_is_merged_over_those_it_is_like(tmp_path):
    write(
        tmp_path, grandparent="name: old\nseeds: [1, 2]\nobjectives: {ga: {x: 1, y: 2}, npo: {x: 3}}\n",
        parent="like: grandparent.yaml\nobjectives: {ga: {x: 10}}\nlora: null\n",
        sub__child="like: ../parent.yaml\nname: new\nseeds: [3]\nobjectives: {npo: null, fresh: {z: 1}}\n",
    )  # fmt: skip
    assert read_study_file(tmp_path / "sub/child.yaml") == {
        "name": "new", "seeds": [3], "objectives": {"ga": {"x": 10, "y": 2}, "fresh": {"z": 1}}, "lora": None,
    }  # fmt: skip


def test_settings_that_another_class_does_not_take_over_are_said(tmp_path, capsys):
    """In files and in flags, at any depth, by the file that does it; the same class keeps its settings. No value is shown."""
    kept = "b: {data: {class_path: Old, init_args: {size: 1}}}"
    old = f"stages: {{a: {{data: {{class_path: Old, init_args: {{size: s3cret, source: world, opt: {{x: 1, y: 2}}}}}}}}, {kept}}}\n"
    new = f"like: old.yaml\nstages: {{a: {{data: {{class_path: New, init_args: {{source: hub, opt: {{x: 5}}}}}}}}, {kept}}}\n"
    write(tmp_path, old=old, new=new, newest="like: new.yaml\nname: newest\n")
    assert read_study_file(tmp_path / "newest.yaml")["stages"]["a"]["data"]["init_args"] == {"source": "hub", "opt": {"x": 5}}
    line = "stages.a.data is New in the place of Old, whose settings do not go over to it: size, opt.y\n"
    assert capsys.readouterr().err == f"new.yaml: {line}"
    parsed = Namespace(stages=yaml.safe_load(old)["stages"])
    other = {"class_path": "New", "init_args": {"source": "hub", "opt": {"x": 5}}}
    change(parsed, {"stages": {"a": {"data": other}, "b": {"data": {"init_args": {"size": 3}}}}})
    assert capsys.readouterr().err == f"unlearn study: {line}"
    assert parsed.stages["b"]["data"]["init_args"] == {"size": 3}


def test_what_a_stage_or_an_objective_does_not_share_is_said_once_for_all(capsys):
    """Layers of one file: a class of its own in the place of the one in `fine_tuning`, `unlearning` or `common`."""

    def schedule(name, **settings):
        return {"model": {"init_args": {"lr_scheduler": {"class_path": name, "init_args": settings}}}}

    shared, own = schedule("WarmupStableDecay", warmup=0.1, decay=0.2), schedule("Cosine", warmup=0.3)
    logger = {"trainer": {"logger": {"class_path": "WandbLogger", "init_args": {"project": "p"}}}}
    stages = {"a": own, "b": {"trainer": {"logger": {"class_path": "CSVLogger"}}}, "safety": schedule("WarmupStableDecay", decay=0.5)}
    every = {"forget": "safety", "order": ("a", "b"), "backbone": {}, "common": logger, "fine_tuning": shared, "unlearning": shared}
    tell_not_shared(StudyConfig(name="own", stages=stages, objectives={"ga": own, "npo": own, "plain": {}}, **every))
    left = "model.init_args.lr_scheduler is Cosine in the place of WarmupStableDecay, whose settings do not go over to it: decay"
    assert capsys.readouterr().err.splitlines() == [
        f"stages a: {left}",
        "stages b: trainer.logger is CSVLogger in the place of WandbLogger, whose settings do not go over to it: project",
        f"objectives ga, npo: {left}",
    ]


def test_circles_missing_files_and_other_things_are_refused_before_work(tmp_path, capsys):
    write(tmp_path, a="like: b.yaml", b="like: a.yaml", alone="like: none.yaml", many="like: [a.yaml, b.yaml]", text="just words")
    for name, message in {
        "a": "in a circle: a.yaml -> b.yaml -> a.yaml", "alone": "none.yaml, which is no file", "many": "the name of one study file",
    }.items():  # fmt: skip
        with pytest.raises((ValueError, FileNotFoundError), match=message):
            read_study_file(tmp_path / f"{name}.yaml")
        with pytest.raises(SystemExit):
            main(["study", str(tmp_path / f"{name}.yaml")])
        assert message in " ".join(capsys.readouterr().err.split())
    with pytest.raises(ValueError, match=r"a mapping of settings \(`name: value`\), got str"):
        read_study_file(tmp_path / "text.yaml")


def test_flags_go_over_the_files_and_the_study_folder_says_all(corpus, questions, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("whole.yaml").write_text(yaml.safe_dump(small(corpus, questions, retrained=False)))
    Path("part.yaml").write_text("like: whole.yaml\nname: part\npositions: [3]\nobjectives: {npo: null}\n")
    assert main(["study", "part.yaml", "--until", "inst", "--seeds", "[4]", "--jobs", "1"]) == 0
    written = yaml.safe_load(Path("runs/part/study.yaml").read_text())
    assert "like" not in written
    assert (written["name"], written["seeds"], written["positions"], list(written["objectives"])) == ("part", [4], [3], ["ga"])
    assert written["probes"]["retain"]["stage"] == "inst"
    assert [run["name"] for run in read_study(Path("runs/part"))["runs"]][-1] == "seed4/p3/ga"


NAMED = {"order": [], "paths": {"last": ["inst", "math", "safety"], "first": ["safety", "inst", "math"], "alone": ["safety"]}}


def test_named_paths_share_prefixes_and_retrained_models(corpus, questions, tmp_path):
    runs = {run.name: run for run in tree(small(corpus, questions, **NAMED), tmp_path)}
    stages = ["base", "inst", "inst-math", "inst-math-safety", "safety", "safety-inst", "safety-inst-math"]
    unlearned = [f"{path}/{objective}" for path in ("last", "first", "alone") for objective in ("ga", "npo")]
    assert set(runs) == {f"seed0/{name}" for name in [*stages, *unlearned]}
    assert runs["seed0/first/npo"].tags == {
        "seed": 0, "path": ["safety", "inst", "math"], "p": 1, "path_name": "first", "objective": "npo",
    }  # fmt: skip
    assert {name for name, run in runs.items() if run.tags.get("retrained")} == {"seed0/inst-math", "seed0/base"}
    compared = {path: {name: run.name for name, run in runs[f"seed0/{path}/ga"].compare.items()} for path in ("last", "first", "alone")}
    assert compared["first"] == {"retrained": "seed0/inst-math", "last": "seed0/last/ga"}
    assert compared["alone"]["retrained"] == "seed0/base"
    # By position, these two paths are the same runs.
    by_position = {run.key for run in tree(small(corpus, questions, positions=[1, 3]), tmp_path)}
    assert {runs[f"seed0/{name}"].key for name in ("last/ga", "first/npo", "inst-math")} <= by_position


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"paths": {}}, "at least one path"),
        ({"paths": {"a": ["inst"]}}, "must hold the forget stage 'safety' once"),
        ({"paths": {"a": ["safety", "inst", "safety"]}}, "once; got"),
        ({"paths": {"a/b": ["safety"]}}, "name of a path may have letters"),
        ({"paths": {"retrained": ["safety"]}}, "not `retrained`"),
        ({"paths": {"a": ["safety"], "b": ["safety"]}}, "'a' and 'b' are the same"),
        ({"paths": {"a": ["safety", "tofu"]}}, "names the stage 'tofu'"),
        ({"paths": {"a": ["safety"]}, "order": ["inst"]}, "set `order` to"),
    ],
)
def test_impossible_paths_are_refused(changes, message, corpus, questions):
    with pytest.raises(ValueError, match=message):
        config_of(small(corpus, questions, **{"order": [], **changes}))


def test_the_report_and_the_status_use_the_names(corpus, questions, tmp_path):
    settings = {**small(corpus, questions, **NAMED), "objectives": {"ga": {"model": {"class_path": "GradientAscent"}}}}
    folder = tmp_path / "study"
    Local(jobs=1).launch(Work(config_of(settings), tree(settings, tmp_path / "store"), folder, Console(quiet=True)))
    assert {run.name for run in study_states(folder) if run.kind == "unlearn"} == {f"seed0/{name}/ga" for name in NAMED["paths"]}
    study = load_study(folder)
    assert [(path.label, path.after) for path in study.paths] == [("last", 0), ("first", 2), ("alone", 0)]
    assert [path.label for path in study.last_paths] == ["last", "alone"]
    distances = {run.name: Distances(study).to_retrained(run) for run in study.finished("unlearn")}
    assert distances["seed0/last/ga"].keys() == distances["seed0/first/ga"].keys() == {0, 1, 2}
    assert distances["seed0/last/ga"][0] != distances["seed0/first/ga"][0]
    assert distances["seed0/alone/ga"] == {}
    report = build(folder)
    assert "No distance to the retrained model for seed 0 on alone" in report.problems[0]
    rows = (folder / "report/table.csv").read_text().splitlines()
    assert rows[1].startswith("3,last,inst math safety,GA,1,")
    assert {line.name for chart in report.charts if chart.key == "label" for panel in chart.panels for line in panel.lines} == set(
        NAMED["paths"]
    )
