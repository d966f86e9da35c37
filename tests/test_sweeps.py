"""W&B sweeps: every shipped one is parsed by the command that it drives, and W&B's real agent runs trials that meet in one report."""

import itertools
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import wandb
import yaml
from study_runs import settings
from test_report_study_data import StudyWriter
from test_study import small
from wandb import wandb_agent
from wandb.apis.public import sweeps
from wandb.sdk.launch.sweeps.utils import create_sweep_command_args

from unlearn_lightning.cli import lightning_cli
from unlearn_lightning.cli.resolver import ConfigOnly
from unlearn_lightning.records.gather import load
from unlearn_lightning.report import build
from unlearn_lightning.report.sections.matched import compared_retention, matched_forgetting
from unlearn_lightning.study.flags import change, settings_flags
from unlearn_lightning.study.parser import parser
from unlearn_lightning.study.study_config import StudyConfig

ROOT = Path(__file__).parents[1]
SHIPPED = sorted((ROOT / "configs/sweeps").glob("*.yaml"))


def trials(sweep):
    """The first and the last trial of a grid, and the corners of a search, as the server would send their parameters."""
    ends = {name: p.get("values") or [p[k] for k in ("value", "min", "max") if k in p] for name, p in sweep["parameters"].items()}
    several = list(itertools.product(*ends.values()))
    return [dict(zip(ends, values, strict=True)) for values in (several[0], several[-1])]


def command_of(sweep, parameters):
    """The command line of a trial, its macros filled in by W&B."""
    flags = create_sweep_command_args({"args": {name: {"value": value} for name, value in parameters.items()}})["args"]
    return [part for chunk in sweep["command"] for part in (flags if chunk == "${args}" else [chunk])]


def at(content, dotted):
    """The value of a dotted name."""
    for name in dotted.split("."):
        content = content[name]
    return content


@pytest.mark.parametrize("file", SHIPPED, ids=lambda file: file.stem)
def test_every_sweep_drives_its_command(file, monkeypatch):
    monkeypatch.chdir(ROOT)
    text = file.read_text()
    for needed in (f"#   wandb sweep configs/sweeps/{file.name}\n", "#   wandb agent SWEEP\n", "#   unlearn report runs/sweeps/SWEEP_ID"):
        assert needed in text
    sweep = yaml.safe_load(text)
    assert sweeps._validate_config_and_fill_distribution(sweep)["method"] in ("grid", "bayes")
    assert sweep["metric"].keys() == {"name", "goal"}
    for parameters in trials(sweep):
        program, verb, *arguments = command_of(sweep, parameters)
        assert program == sweep["program"] == "unlearn"
        if verb == "fit":
            found = lightning_cli.run([verb, *arguments], cli=ConfigOnly).resolved()
        else:
            rest, changes = settings_flags(arguments[1:])
            parsed = parser().parse_args(["--config", arguments[0], *rest])
            change(parsed, changes)
            found = {name: value for name, value in parsed.as_dict().items() if name in StudyConfig.__dataclass_fields__}
            StudyConfig(**found)
        for name, value in parameters.items():
            arrived = at(found, name)
            wanted = None if value == "null" else tuple(value) if isinstance(value, list) else value
            if isinstance(wanted, dict):
                assert wanted.items() <= arrived.items()
            else:
                assert arrived == wanted


def test_flags_of_any_depth_are_merged_and_not_replaced():
    rest, changes = settings_flags(
        ["--seeds=[2]", "--unlearning.model.init_args.optimizer.init_args.lr=1e-4", "--unlearning.trainer.max_epochs", "2", "--plan",
         "--objectives.npo.model.init_args.beta=0.3", "--objectives.ga=null", "--fine_tuning.model.init_args.lr_scheduler=null"]
    )  # fmt: skip
    assert rest == ["--seeds=[2]", "--plan"]
    parsed = parser().parse_args(["--config", str(ROOT / "configs/studies/demo.yaml"), *rest])
    change(parsed, changes)
    assert parsed.unlearning["model"]["init_args"]["optimizer"]["init_args"] == {"lr": 1e-4, "betas": [0.9, 0.999], "weight_decay": 0.0}
    assert parsed.unlearning["trainer"] == {"max_epochs": 2}
    assert parsed.objectives["npo"] == {"model": {"class_path": "NPO", "init_args": {"beta": 0.3}}}
    assert list(parsed.objectives) == ["npo", "simnpo_norm"]
    assert parsed.fine_tuning["model"]["init_args"]["lr_scheduler"] is None
    with pytest.raises(ValueError, match="needs a value"):
        settings_flags(["--common.trainer.devices"])
    with pytest.raises(ValueError, match="which is not YAML"):
        settings_flags(["--common.trainer.devices=*"])
    assert parser().parse_args(["--config", str(ROOT / "configs/studies/demo.yaml"), "--only=*/ga"]).only == "*/ga"
    with pytest.raises(SystemExit):
        parser().parse_args(["--config", str(ROOT / "configs/studies/demo.yaml"), "--match_at=0"])


@pytest.mark.parametrize("name", ["demo_learning_rates", "demo_retain", "demo_steps", "demo_methods"])
def test_every_variant_of_a_study_can_be_left_out_by_a_flag(name):
    """Some names have a dot in them, such as ga-1.5e-4."""
    parsed = parser().parse_args(["--config", str(ROOT / f"configs/studies/{name}.yaml")])
    for variant in list(parsed.objectives):
        change(parsed, settings_flags([f"--objectives.{variant}", "null"])[1])
        assert variant not in parsed.objectives
    assert settings_flags(["--objectives.npo-1.5e-4.model.init_args.beta=0.3"])[1]["objectives"].keys() == {"npo-1.5e-4"}


# --- the compared number ---------------------------------------------------------------------------------------------------------------


def test_retention_at_a_given_forgetting_by_hand(tmp_path):
    writer = StudyWriter(tmp_path)
    # Forgets 1 nat half way between steps 2 and 4, where a tenth of its retention is lost.
    writer.unlearn(1, 1, "npo", phrases={0: 0.0, 2: -0.5, 4: -1.5}, tofu={0: -1.0, 2: -1.05, 4: -1.15})
    # Forgets half a nat in all: retention 0.8 at the end, less the missing half.
    writer.unlearn(1, 4, "npo", phrases={0: 0.0, 4: -0.5}, tofu={0: -1.0, 4: -1.2})
    study = load(writer.write())
    assert compared_retention(study, 1.0) == pytest.approx((0.9 + 0.3) / 2)
    first, last = matched_forgetting(study, 1.0)
    assert (first.step.mean, first.retention.mean) == (pytest.approx(3.0), pytest.approx(0.9))
    assert last.step.text() == last.retention.text() == "–"
    assert build(study.folder, match_at=1.0).summary["compared"] == {"matched/retention": pytest.approx(0.6)}
    with pytest.raises(ValueError, match="above 0 nats, got 0"):
        compared_retention(study, 0)
    assert matched_forgetting(study)[0].score.mean == pytest.approx(0.5), "without a level it is what both reach"


# --- one report of many trials ---------------------------------------------------------------------------------------------------------


def test_trials_that_differ_in_a_setting_become_its_variants(tmp_path):
    for trial, lr in enumerate((1e-4, 5e-5)):
        writer = StudyWriter(tmp_path / f"trial{trial}")
        config = yaml.safe_dump({"run_folder": f"/x/{trial}", "model": {"init_args": {"optimizer": {"init_args": {"lr": lr}}}}})
        for seed in (1, 2):
            folder = writer.unlearn(seed, 4, "npo", label={0: 0.0, 8: -1.0 - trial}, config=config)
            writer.content["runs"][-1]["key"] += f"-{trial}"
            assert folder.is_dir()
        writer.unlearn(1, 1, "npo", label={0: 0.0, 8: -3.0}, config="{}")  # the same run in both
        (tmp_path / "sweep").mkdir(exist_ok=True)
        shutil.copytree(writer.write(), tmp_path / f"sweep/demo-{trial}")
        shutil.copytree(tmp_path / f"trial{trial}/store", tmp_path / "sweep/store", dirs_exist_ok=True)
        study = json.loads((tmp_path / f"sweep/demo-{trial}/study.json").read_text())
        for run in study["runs"]:
            run["folder"] = f"../../trial{trial}/store/{Path(run['folder']).name}"
        (tmp_path / f"sweep/demo-{trial}/study.json").write_text(json.dumps(study))
    found = load(tmp_path / "sweep")
    assert len(found.runs) == 2 * 2 + 1
    assert sorted(found.objectives) == ["NPO", "NPO · lr=0.0001", "NPO · lr=5e-05"]
    assert found.seeds == [1, 2]
    report = build(tmp_path / "sweep")
    assert "label_by_lr" in {chart.key for chart in report.charts}
    assert (tmp_path / "sweep/report/index.html").is_file()


@pytest.mark.parametrize(
    ("given", "names"),
    [
        ([{"data": {"init_args": {"source": f"/d/{n}.jsonl"}}} for n in "ab"], ["NPO · source=a.jsonl", "NPO · source=b.jsonl"]),
        (
            [{"data": {"init_args": {"source": f"/d/{n}.jsonl"}}, "model": {"init_args": {"beta": n}}} for n in "ab"],
            ["NPO · source=a.jsonl · beta=a", "NPO · source=b.jsonl · beta=b"],
        ),
        ([{"data": {"init_args": {"source": f"/{n}/f.jsonl"}}} for n in "ab"], ["NPO · source=a/f.jsonl", "NPO · source=b/f.jsonl"]),
        ([{"model": {"init_args": {"backbone": {"model": f"hub/{n}"}}}} for n in "ab"], ["NPO · model=a", "NPO · model=b"]),
        ([{}, {}], ["NPO · run=run0", "NPO · run=run1"]),
        ([{"model": {"init_args": {f"a{i}": n for i in range(4)}}} for n in (1, 2)], ["NPO · run=run0", "NPO · run=run1"]),
    ],
)
def test_runs_of_one_seed_are_never_taken_for_two(tmp_path, given, names):
    """Runs that differ in their data, in their model, or in nothing that their settings say, are told apart."""
    for number, config in enumerate(given):
        folder = StudyWriter(tmp_path / f"made{number}").unlearn(
            0, 1, "npo", label={0: 0.0, 8: -1.0 - number}, config=yaml.safe_dump(config)
        )
        about = json.loads((folder / "run.json").read_text())
        (folder / "run.json").write_text(json.dumps({**about, "key": f"key{number}", "seed": 0, "model": "NPO"}))
        shutil.copytree(folder, tmp_path / f"all/run{number}")
    assert sorted(load(tmp_path / "all").objectives) == names


def test_a_folder_of_neither_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"is empty: there is no study\.json and no run\.json in it"):
        load(tmp_path)


# --- W&B's own agent -------------------------------------------------------------------------------------------------------------------


class Server:
    """Stands in for W&B's server, which cannot be installed: it registers an agent and sends it one trial after the other."""

    def __init__(self, sweep, parameters):
        self.sweep = sweep
        self.waiting = [
            {"type": "run", "run_id": f"trial{i}", "program": sweep["program"], "args": {k: {"value": v} for k, v in p.items()}}
            for i, p in enumerate(parameters)
        ]

    def heartbeat(self, api, agent, metrics, running):
        if running:
            return []
        return [self.waiting.pop(0)] if self.waiting else [{"type": "exit"}]

    def run_agent(self, monkeypatch, name, folder):
        """The real agent, in this process; its trials are real processes, which know nothing of W&B's state in this one."""
        bin_folder = folder / "bin"
        bin_folder.mkdir(exist_ok=True)
        (bin_folder / "unlearn").write_text(f'#!/bin/sh\nexec {sys.executable} -m unlearn_lightning.main "$@"\n')
        (bin_folder / "unlearn").chmod(0o755)
        monkeypatch.chdir(folder)
        for variable in ("WANDB_RUN_ID", "WANDB_SWEEP_ID", "WANDB_SWEEP_PARAM_PATH", "WANDB_DIR", "WANDB_ENTITY", "WANDB_PROJECT"):
            monkeypatch.setenv(variable, "")  # so that what the agent sets is undone
            monkeypatch.delenv(variable)
        monkeypatch.setenv("WANDB_MODE", "offline")
        monkeypatch.setenv("PATH", f"{bin_folder}:{os.environ['PATH']}")
        monkeypatch.setenv("PYTHONPATH", str(ROOT))
        monkeypatch.setattr(wandb, "Api", lambda: SimpleNamespace(settings={}))
        monkeypatch.setattr(wandb, "teardown", lambda *_: None)
        monkeypatch.setattr(wandb_agent.Agent, "POLL_INTERVAL", 0.2)
        monkeypatch.setattr(sweeps, "_sweep_with_runs", lambda *_, **__: {"config": yaml.safe_dump(self.sweep)})
        monkeypatch.setattr(sweeps, "_register_agent", lambda *_, **__: {"id": "agent"})
        monkeypatch.setattr(sweeps, "_agent_heartbeat", self.heartbeat)
        wandb_agent.run_agent(name)


def inspected(file):
    """An offline run, read back with W&B's own tool."""
    tool = Path(sys.executable).with_name("wandb")
    return subprocess.run([str(tool), "leet", "inspect", "--json", str(file)], capture_output=True, text=True, check=True).stdout


def test_the_real_agent_runs_studies_and_their_compared_result_is_read_back(corpus, questions, tmp_path, monkeypatch):
    study = small(corpus, questions, retrained=False, positions=[2], base={"trainer": {"max_epochs": 1}}, stage_probes=[])
    study |= {"objectives": {"npo": study["objectives"]["npo"]}, "order": ["inst"]}
    study["stages"].pop("math")
    study["probes"].pop("divergence")
    (tmp_path / "study.yaml").write_text(yaml.safe_dump(study))
    sweep = {
        "program": "unlearn", "method": "bayes", "metric": {"name": "matched/retention", "goal": "maximize"},
        "command": ["unlearn", "study", "study.yaml", "--match_at=0.01", "--jobs=1", "${args}"],
    }  # fmt: skip
    rates = [1e-3, 1e-2]
    name = "unlearning.model.init_args.optimizer.init_args.lr"
    Server(sweep, [{name: rate} for rate in rates]).run_agent(monkeypatch, "swp", tmp_path)

    folder = tmp_path / "runs/sweeps/swp"
    assert sorted(path.name for path in folder.iterdir()) == ["small-trial0", "small-trial1"]
    for i, rate in enumerate(rates):
        (file,) = (folder / f"small-trial{i}").glob("wandb/offline-run-*/run-trial*.wandb")
        assert file.name == f"run-trial{i}.wandb"
        compared = compared_retention(load(folder / f"small-trial{i}"), 0.01)
        records = inspected(file)
        (logged,) = re.findall(r'"matched/retention":([-.e0-9]+)', records)
        assert float(logged) == pytest.approx(compared)
        assert re.findall(rf'"{name}":([-.e0-9]+)', records) == [f"{rate:g}"], "the trial's parameter is in its W&B run"
        assert '"sweep_id":"swp"' in records
    # The study's runs are W&B runs of their own: none has taken the trial's.
    stored = [file.name for file in (tmp_path / "runs/store").glob("*/wandb/offline-run-*/run-*.wandb")]
    assert len(stored) == 3 + 2
    assert not any("trial" in name for name in stored)
    gathered = load(folder)
    assert sorted(gathered.objectives) == ["NPO · lr=0.001", "NPO · lr=0.01"]
    assert len(gathered.finished("stage")) == 3, "stages are trained once for both trials"


def test_the_real_agent_runs_single_fits_and_null_arrives(corpus, questions, tmp_path, monkeypatch):
    retain = {"class_path": "RetainLikelihood", "init_args": {"limit": 2}}
    config = settings(corpus, questions, tmp_path / "unused", "NPO", trainer={"callbacks": [retain]})
    del config["run_folder"]
    (tmp_path / "fit.yaml").write_text(yaml.safe_dump(config))
    sweep = {"program": "unlearn", "method": "grid", "command": ["unlearn", "fit", "-c", "fit.yaml", "${args}"]}
    trial = {"model.init_args.beta": 0.3, "model.init_args.backbone.lora": "null", "trainer.gradient_clip_val": "null"}
    Server(sweep, [trial]).run_agent(monkeypatch, "fits", tmp_path)
    (run,) = (tmp_path / "runs/sweeps/fits").glob("NPO-*")
    written = yaml.safe_load((run / "config.yaml").read_text())
    assert [at(written, name) for name in trial] == [0.3, None, None]
    (file,) = run.glob("wandb/offline-run-*/run-trial0.wandb")
    assert "retain/chat_change" in inspected(file)
    (entry,) = load(tmp_path / "runs/sweeps/fits").runs
    assert (entry.objective, entry.stages, entry.status) == ("NPO", (), "finished")
