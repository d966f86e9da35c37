"""The package of docs/extend.md, installed and used; and one that is broken."""

import csv
import importlib
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from study_runs import fit, run_json, settings
from test_report_study_data import StudyWriter
from test_study import small

from unlearn_lightning.cli.plugins import import_plugins
from unlearn_lightning.cli.resolver import Resolver
from unlearn_lightning.main import main
from unlearn_lightning.records.study_data import load_study
from unlearn_lightning.report.section import Material
from unlearn_lightning.report.sections import sections
from unlearn_lightning.runs.source_hash import own_code
from unlearn_lightning.study.changes import explain_changes
from unlearn_lightning.study.study_config import StudyConfig, merged
from unlearn_lightning.study.tree import plan

DOC = Path(__file__).parents[1] / "docs" / "extend.md"
FILE = re.compile(r"\*\*, `([\w/]+\.(?:toml|py))`\..*?```(?:toml|python)\n(.*?)```", re.S)


def write_package(folder):
    files = dict(FILE.findall(DOC.read_text()))
    for name, text in {**files, "my_unlearning/__init__.py": ""}.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    return files


@pytest.fixture(scope="module")
def plugin(tmp_path_factory):
    """The documented package, built and installed by pip where this process can see it."""
    source, site = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("site")
    write_package(source)
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-build-isolation", "--target", str(site), str(source)]
    done = subprocess.run(pip, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(site))
        importlib.invalidate_caches()
        import_plugins()
        yield site


def test_every_documented_class_is_short(tmp_path):
    files = write_package(tmp_path)
    assert set(files) == {
        "pyproject.toml",
        *(f"my_unlearning/{name}.py" for name in ("objective", "stage", "metric", "launcher", "section")),
    }
    assert all(len(text.splitlines()) < 25 for text in files.values())


def test_a_section_of_a_plugin_shows_what_its_probe_measured(plugin, tmp_path):
    writer = StudyWriter(tmp_path)
    run = writer.unlearn(1, 4, "npo")
    for step, tokens in ((0, 20.0), (4, 12.25)):
        writer.record(run, "length", step, {"length/tokens": tokens}, [])
    found = next(section for section in sections(Material(load_study(writer.write()))) if type(section).__name__ == "Lengths")
    assert found.tables[0].csv() == "run,length\nseed1/p4/npo,12.25\n"


def test_the_documented_command_runs(plugin, tmp_path, monkeypatch):
    (block,) = re.findall(r"```\n(unlearn fit --model .*?)```", DOC.read_text(), re.S)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "configs").symlink_to(DOC.parents[1] / "configs")
    words = shlex.split(block.replace("\\\n", " "))
    small = ["--trainer.max_steps", "1", "--trainer.accelerator", "cpu", "--run_folder", "run", "--data.held_out_examples", "4"]
    assert main([*words[1:], *small]) == 0
    assert run_json(tmp_path / "run")["status"] == "finished"
    assert [path.name for path in (tmp_path / "run" / "records").iterdir()] == ["length"]


@pytest.mark.parametrize(("floor", "moves"), [(1.0, False), (1e6, True)])
def test_settings_of_a_plugin_reach_its_loss(floor, moves, plugin, corpus, questions, tmp_path):
    config = settings(corpus, questions, tmp_path / "run", cls="FlooredAscent", trainer={"max_steps": 1})
    config["model"]["init_args"] = {"backbone": config["model"]["init_args"]["backbone"], "floor": floor}
    config["data"] = {"class_path": "SayingsStage", "init_args": {"batch_size": 8}}
    done = fit(config)
    # A model that knows nothing is below a floor of one nat everywhere, where the loss is flat.
    with (done.run_folder / "metrics.csv").open() as file:
        (loss,) = [float(row["train/loss"]) for row in csv.DictReader(file)]
    assert (loss == pytest.approx(-floor)) is not moves


def test_a_study_plans_stages_of_a_plugin(plugin, tmp_path):
    stage = {"data": {"class_path": "SayingsStage", "init_args": {"source": "world"}}}
    study = StudyConfig(
        name="mine", forget="b", order=("a",), stages={"a": stage, "b": stage},
        objectives={"mine": {"model": {"class_path": "FlooredAscent"}}},
        backbone={"scratch": {"hidden": 32, "layers": 1, "intermediate": 32, "heads": 2, "corpus": ["stages"]}, "lora": None},
    )  # fmt: skip
    runs = plan(study, tmp_path, Resolver().resolve)
    assert any(run.config["model"]["class_path"] == "my_unlearning.objective.FlooredAscent" for run in runs)


def test_an_edited_class_of_ones_own_makes_another_key_and_says_so(plugin, tmp_path):
    stage = {"data": {"class_path": "SayingsStage", "init_args": {"source": "world"}}}
    study = StudyConfig(
        name="mine", forget="b", order=("a",), stages={"a": stage, "b": merged(stage, {"data": {"init_args": {"max_length": 100}}})},
        objectives={"mine": {"model": {"class_path": "FlooredAscent"}}, "ga": {"model": {"class_path": "GradientAscent"}}},
        backbone={"scratch": {"hidden": 32, "layers": 1, "intermediate": 32, "heads": 2}, "lora": None},
    )  # fmt: skip
    before = plan(study, tmp_path, Resolver().resolve)
    file = plugin / "my_unlearning" / "objective.py"
    whole = file.read_text()
    file.write_text(whole.replace("clamp", "clip"))
    assert file.read_text() != whole
    try:
        after = plan(study, tmp_path, Resolver().resolve)
    finally:
        file.write_text(whole)
    assert {b.name for b, a in zip(before, after, strict=True) if b.key != a.key} == {"seed0/p1/mine", "seed0/p2/mine"}
    lines = explain_changes({"runs": [run.entry(tmp_path) for run in before]}, after)
    assert len(lines) == 2
    assert all("changed the source code of a class that it names" in line for line in lines)


def test_code_counts_with_what_it_imports_from_its_own_package(tmp_path, monkeypatch):
    package = tmp_path / "somebodys"
    package.mkdir()
    for name, text in {
        "__init__": "",
        "loss": "from . import sums\nclass A: pass",
        "sums": "import torch\nB = 1",
        "other": "C = 1",
    }.items():
        (package / f"{name}.py").write_text(text)
    monkeypatch.syspath_prepend(str(tmp_path))
    importlib.import_module("somebodys.other")
    first = own_code(["somebodys.loss.A", "torch.optim.AdamW"])
    assert set(first) == {"somebodys", "somebodys.loss", "somebodys.sums"}
    (package / "sums.py").write_text("import torch\nB = 1  # one")
    assert own_code(["somebodys.loss.A"]) == first
    (package / "sums.py").write_text("import torch\nB = 2")
    second = own_code(["somebodys.loss.A"])
    assert {name for name in first if first[name] != second[name]} == {"somebodys.sums"}


def test_code_counts_with_the_helpers_that_lie_beside_it(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "lone_loss.py").write_text("import json, yaml, torch, lone_helper\nclass A: pass")
    (tmp_path / "lone_helper.py").write_text("import lone_deeper")
    (tmp_path / "lone_deeper.py").write_text("B = 1")
    first = own_code(["lone_loss.A"])
    assert set(first) == {"lone_loss", "lone_helper", "lone_deeper"}
    (tmp_path / "lone_deeper.py").write_text("B = 2")
    assert own_code(["lone_loss.A"])["lone_deeper"] != first["lone_deeper"]


def test_the_launcher_executes_a_study(plugin, corpus, questions, tmp_path, monkeypatch, capsys):
    """By its short name, and by its class path; the last run's process is a real one."""
    monkeypatch.chdir(tmp_path)
    Path("small.yaml").write_text(yaml.safe_dump(small(corpus, questions, retrained=False)))
    command = ["study", "small.yaml", "--only", "seed0/base"]
    assert main([*command, "--launcher", "Prefixed", "--launcher.prefix", "true"]) == 1
    assert "seed0/base: it ended and is not finished" in capsys.readouterr().out
    by_path = "my_unlearning.launcher.Prefixed"
    assert main([*command, "--retry-failed", "--launcher", by_path, "--launcher.prefix", "env A_PREFIX=1"]) == 0
    assert "1 runs executed" in capsys.readouterr().out
    assert main([*command, "--launcher", "slurmm"]) == 2
    assert "no launcher 'slurmm': there are local, prefixed, slurm, or" in capsys.readouterr().err
    assert main([*command, "--jobs", "2", "--launcher", by_path, "--launcher.prefix", "true"]) == 2
    assert "--jobs is for the local launcher" in capsys.readouterr().err


def test_an_unknown_stage_is_named(tmp_path):
    stage = {"data": {"class_path": "NoSuchStage", "init_args": {}}}
    study = StudyConfig(
        name="mine", forget="b", order=(), stages={"b": stage}, objectives={}, backbone={"scratch": {"corpus": ["stages"]}, "lora": None}
    )
    with pytest.raises(ValueError, match="no stage 'NoSuchStage'"):
        plan(study, tmp_path, Resolver().resolve)


def test_a_broken_plugin_is_named_and_left_out(tmp_path, monkeypatch, capsys):
    info = tmp_path / "broken-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: broken\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[unlearn_lightning.plugins]\nit = broken_plugin\n")
    (tmp_path / "broken_plugin.py").write_text("raise RuntimeError('no such luck')")
    monkeypatch.syspath_prepend(str(tmp_path))
    import_plugins()
    (line,) = capsys.readouterr().err.splitlines()
    assert "'broken_plugin' of broken was left out (RuntimeError: no such luck)" in line
