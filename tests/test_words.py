"""What is typed is what is meant: the order of flags and files, null, changes of class, variables, and errors in one line."""

import dataclasses
import os
import re
from pathlib import Path

import pytest
import yaml
from lightning.pytorch.utilities.exceptions import MisconfigurationException

from unlearn_lightning.cli import errors
from unlearn_lightning.cli.arguments import prepared
from unlearn_lightning.cli.did_you_mean import class_names
from unlearn_lightning.cli.early_checks import LEAST, check_optimizer, check_settings
from unlearn_lightning.cli.environment import refuse_unknown
from unlearn_lightning.cli.lightning_cli import run
from unlearn_lightning.cli.resolver import ConfigOnly
from unlearn_lightning.data import SafetyStage
from unlearn_lightning.main import main
from unlearn_lightning.models.backbone import Backbone
from unlearn_lightning.models.places import check_place
from unlearn_lightning.objectives.npo import NPO
from unlearn_lightning.study.flags import settings_flags
from unlearn_lightning.study.parser import parse

CONFIGS = Path(__file__).parents[1] / "configs"
NPO_FILE, TINY = str(CONFIGS / "objectives/npo.yaml"), str(CONFIGS / "backbones/tiny-llama.yaml")


def parsed(*words):
    return run(["fit", *words, "-c", TINY], cli=ConfigOnly).resolved()


@pytest.mark.parametrize(
    "spelling", [["-c", NPO_FILE], [f"-c={NPO_FILE}"], [f"-c{NPO_FILE}"], [f"--config={NPO_FILE}"], ["--conf", NPO_FILE]]
)
def test_files_come_before_the_flags_that_stand_before_them(spelling):
    expected = ["fit", "--config", NPO_FILE, "--data", "TofuStage", "--data.source", "mine.json"]
    assert prepared(["fit", "--data", "TofuStage", "--data.source", "mine.json", *spelling]) == expected


def test_flags_win_wherever_they_stand_in_a_run_and_in_a_study():
    data = parsed("--data", "TofuStage", "--data.source", "mine.json", "-c", NPO_FILE)["data"]
    assert data["class_path"].endswith("TofuStage")
    assert data["init_args"]["source"] == "mine.json"
    _, study = parse(["--seeds=[7]", "--config", str(CONFIGS / "studies/demo.yaml")])
    assert list(study.seeds) == [7]
    assert prepared(["--model.beta", "2", "--model", "NPO"]) == ["--model", "NPO", "--model.beta", "2"]
    assert prepared(["--model.backbone.lora.rank", "2", "--model.backbone.lora", "null"])[-1] == "null"


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["--trainer.callbacks", "GSM8KAccuracy"], "trainer.callbacks: GSM8KAccuracy in place of ForgetLikelihood; "),
        (["--trainer.callbacks", "null"], "trainer.callbacks: none in place of ForgetLikelihood; "),
        (["-c", str(CONFIGS / "stages/family.yaml")], "trainer.callbacks: ResponseFamilies in place of ForgetLikelihood; "),
        (["--trainer.callbacks+", "GSM8KAccuracy"], None),
    ],
)
def test_callbacks_that_a_later_list_replaces_are_named(words, line, capsys, caplog):
    parsed("-c", NPO_FILE, *words)
    said = capsys.readouterr().err + capsys.readouterr().out + caplog.text
    assert (line in said) if line else ("in place of ForgetLikelihood" not in said)


TEXTS = [
    f"--model.backbone.{field.name}" for field in dataclasses.fields(Backbone) if field.type in ("str | None", "str | list[str] | None")
]
TEXTS += [f"--data.{name}" for name, hint in SafetyStage.__init__.__annotations__.items() if hint == "str | None"]
TEXTS += ["--run_folder", "--model.retain.data.held_out_source", "--model.backbone.lora"]


def test_null_is_null_for_every_text_and_group():
    assert len(TEXTS) > 9
    for null in ("null", "None"):
        found = parsed("-c", NPO_FILE, "--model.retain.data=TofuStage", *(f"{name}={null}" for name in TEXTS))
        model, data = found["model"]["init_args"], found["data"]["init_args"]
        for name in TEXTS:
            first, *below = name.removeprefix("--").split(".")
            value = {"model": model, "data": data, "run_folder": found}[first]
            for part in below or [first]:
                value = value["init_args"][part] if "class_path" in value else value[part]
            assert value is None, (name, null)


def test_null_in_a_studys_flags_and_as_wandb_writes_it():
    _, changes = settings_flags(["--base.data=None", "--common.model.init_args.x=[None, 1]", "--unlearning.y={'a': None}"])
    assert changes == {"base": {"data": None}, "common": {"model": {"init_args": {"x": [None, 1]}}}, "unlearning": {"y": {"a": None}}}
    assert (
        parse([str(CONFIGS / "studies/demo.yaml"), "--launcher", "slurm", "--launcher.partition", "null"])[1].launcher.init_args.partition
        is None
    )


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["--model", "SimNPO"], "so that SimNPO's own defaults count: beta 0.25."),
        (["--model.optimizer", "torch.optim.SGD"], "SGD in place of AdamW: left out, so that SGD's own defaults count: lr 1e-05"),
        (["--data", "TofuStage"], "TofuStage in place of SafetyStage: taken over: batch_size 128"),
    ],
)  # fmt: skip
def test_what_a_change_of_class_keeps_and_drops_is_said(words, line, tmp_path, capsys, caplog):
    config = yaml.safe_load(Path(NPO_FILE).read_text())
    config["model"]["init_args"]["beta"] = 0.25
    (tmp_path / "file.yaml").write_text(yaml.safe_dump(config))
    with caplog.at_level("INFO"):
        found = parsed("-c", str(tmp_path / "file.yaml"), *words)
    assert line in caplog.text + capsys.readouterr().err
    if words[1] == "SimNPO":
        assert found["model"]["init_args"]["beta"] == 1.0


def test_another_verbs_variables_are_left_to_it_and_its_parser_is_not_made():
    refuse_unknown({"UNLEARN_VALIDATE__TRAINER__MAX_STEP": "1"}, {"UNLEARN_FIT__TRAINER__MAX_STEPS"})
    made = run(["fit", "-c", NPO_FILE, "-c", TINY], cli=ConfigOnly)
    assert list(made.subcommands()) == ["fit"]
    with pytest.raises(SystemExit):
        run(["fti"], cli=ConfigOnly)


@pytest.mark.parametrize("name", ["UNLEARN_DATE", "UNLEARN_TRACEBAK", "UNLEARN_FIT__TRAINER__MAX_STEP", "UNLEARN_FTI__RUN_FOLDER"])
def test_an_unknown_variable_is_refused_with_the_nearest_name(name, monkeypatch, capsys):
    with pytest.raises(ValueError, match=f"{name}, which nothing here reads. Did you mean UNLEARN_"):
        refuse_unknown({name: "1"}, {"UNLEARN_FIT__TRAINER__MAX_STEPS"})
    if not name.startswith("UNLEARN_FIT__"):
        monkeypatch.setenv(name, "1")
        assert main(["configs"]) == 2
        assert name in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--data.batch_size", "abc"], "data.batch_size: expected a whole number, got 'abc'."),
        (["--trainer.max_steps", "null"], "trainer.max_steps: expected a whole number, got null."),
        (["--model.optimizer.lr", "abc"], "model.optimizer.lr: expected a number, got 'abc'."),
        (["--model.lr_scheduler.warmup", "x"], "model.lr_scheduler.warmup: expected a number, got 'x'."),
        (["--model.backbone.quantization", "4bit"], "model.backbone.quantization: expected one of nf4, int8 or null, got '4bit'."),
        (["--model.backbone.lora.rank", "x"], "model.backbone.lora.rank: expected a whole number, got 'x'."),
        (["--trainer.callbacks.limit", "x"], "trainer.callbacks.limit: expected a whole number or null, got 'x'."),
        (["--model.retain.weight", "x"], "model.retain.weight: expected a number, got 'x'."),
        (["--seed_everything", "x"], "seed_everything: expected true or false or a whole number, got 'x'."),
        (["--model.optimizer", "Adamw"], "there is no class 'Adamw'. Did you mean 'Adam'?"),
        (["--model.optimizer.lrr", "1"], "there is no key 'lrr'. Did you mean 'lr'?"),
    ],
)
def test_a_wrong_type_is_one_line(words, message, capsys):
    assert "AdamW" in class_names()
    with pytest.raises(SystemExit):
        parsed("-c", NPO_FILE, *words)
    assert capsys.readouterr().err == f"unlearn: {message}\n"


@pytest.mark.parametrize(
    ("words", "part"),
    [
        (["--model.beta", "-1"], "NPO needs beta above 0, got -1.0."),
        (["--data.batch_size", "0"], "batch_size must be at least 1, got 0."),
        (["--data.micro_batch_size", "0"], "micro_batch_size must be at least 1, got 0."),
        (["--data.source", "null"], "data.source: expected text, got null."),
        (["--model.optimizer.lr", "-1"], "model.optimizer: Invalid learning rate: -1.0"),
        (["--model.lr_scheduler.warmup", "2"], "between 0 and 1; got 2.0."),
        (["--model.backbone.scratch.heads", "0"], "scratch.heads must be at least 1, got 0."),
        (["--trainer.accelerator", "gpu"], "Asked for: accelerator gpu"),
        (["--trainer.gradient_clip_val", "-1"], "trainer.gradient_clip_val must be at least 0, got -1."),
        (["--trainer.max_steps", "-5"], "trainer.max_steps must be at least -1, got -5. ("),
        (["--trainer.devices", "0"], "trainer.devices is how many devices a run takes, at least 1, auto, or -1 for all; got 0."),
        (
            ["--model.backbone.adapter", "[a,null]"],
            'model.backbone.adapter: expected a text or a list of texts, got the list ["a", null], ',
        ),
        (
            ["--trainer.max_time", "5"],
            "trainer: `Timer(duration='5')` is not a valid duration. Expected a string in the format DD:HH:MM:SS.",
        ),
        (["--checkpoint_every_n_steps", "-1"], "checkpoint_every_n_steps is a number of steps"),
        (["--seed_everything", "-3"], "seed_everything: -3 is not in bounds"),
        (["--model.backbone.chat_template_from", "./nowhere"], "backbone.chat_template_from: there is no model folder ./nowhere."),
        (["--model.backbone.tokenizer", str(CONFIGS)], f"the folder {CONFIGS} holds no model: it has none of config.json"),
    ],
)
def test_a_value_out_of_range_is_one_line_before_anything_is_written(words, part, tmp_path, capsys):
    import torch

    if "gpu" in words and torch.cuda.is_available():
        pytest.skip("there is a GPU")
    capsys.readouterr()
    assert main(["fit", "-c", NPO_FILE, "-c", TINY, "--run_folder", str(tmp_path / "run"), "--trainer.accelerator=cpu", *words]) == 1
    last = capsys.readouterr().err.strip().splitlines()[-1]
    assert last.startswith("unlearn: ")
    assert part in last
    assert len(last) < 500
    assert not (tmp_path / "run/run.json").exists()


@pytest.fixture(scope="module")
def whole():
    return parsed("-c", NPO_FILE)


WRONG = [*((name, -5) for name in LEAST), *(("devices", wrong) for wrong in ("0", 0, "-3", "two", "[]", [], "", "1.5"))]


@pytest.mark.parametrize(("name", "value"), WRONG)
def test_a_trainers_number_that_is_out_of_range_is_named_without_another_settings_hint(name, value, whole):
    with pytest.raises(ValueError, match=rf"^trainer\.{name} .*at least .* got {re.escape(str(value))}\.") as error:
        check_settings({**whole, "trainer": {**whole["trainer"], name: value}})
    assert "Asked for" not in str(error.value)


@pytest.mark.parametrize("value", [1, "1", "auto", -1, "-1", [0, 1], "0,1", "[0, 1]", "1,"])
def test_devices_in_every_spelling_of_lightnings(value, whole):
    check_settings({**whole, "trainer": {**whole["trainer"], "devices": value}})


def test_a_mistyped_folder_is_named_at_once_with_the_nearest_one(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs/base/model").mkdir(parents=True)
    check_place("runs/base/model", "backbone.model")
    for wrong in ("runs/bse/model", "rnus/base/model", "./runs/base/modle"):
        with pytest.raises(FileNotFoundError, match=r"no model folder .*Did you mean runs/base/model\?"):
            check_place(wrong, "backbone.model")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(FileNotFoundError, match=r"no model folder no-such-model, and it is not in the Hub's cache.*HF_HUB_OFFLINE"):
        check_place("no-such-model", "backbone.model")


@pytest.mark.parametrize(
    "error", [ValueError("a\nb"), OSError("a b"), MisconfigurationException("a b"), ImportError("a b"), ZeroDivisionError("a b")]
)
def test_a_known_error_is_a_line_for_every_verb(error, monkeypatch, capsys):
    def fail(*_):
        raise error

    monkeypatch.setattr("unlearn_lightning.main._dispatch", fail)
    for verb in ("fit", "study", "report", "memory", "new"):
        assert main([verb]) in (1, 2)
        assert capsys.readouterr().err.count("\n") == 1
    monkeypatch.setenv("UNLEARN_TRACEBACK", "1")
    with pytest.raises(type(error)):
        main(["fit"])


def test_an_unknown_error_leaves_its_traceback_in_a_file(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert errors.told(RuntimeError("odd"), "unlearn") == 1
    (file,) = tmp_path.glob("unlearn-traceback-*.txt")
    assert "RuntimeError: odd" in file.read_text()
    told = capsys.readouterr().err
    assert str(file) in told
    assert told.count("\n") == 1
    assert len(errors.line(ValueError("x" * 10**6))) < 1000


def test_an_optimizer_is_tried_before_the_weights_are_read(make_backbone):
    check_optimizer(NPO(make_backbone()))
    assert os.environ.get("UNLEARN_TRACEBACK") is None
