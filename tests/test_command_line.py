"""The `unlearn` command as its users meet it."""

import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from study_runs import command, fit, settings

from unlearn_lightning.cli.resolver import Resolver
from unlearn_lightning.main import main

CONFIGS = Path(__file__).parents[1] / "configs"


def test_help_imports_no_torch():
    code = "import sys; from unlearn_lightning.main import main; main(['--help']); print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "unlearn fit -c" in done.stdout
    assert done.stdout.endswith("False\n")


def test_the_help_of_a_verb_is_made_once_and_then_without_torch(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(sys, "prefix", str(tmp_path))
    assert main(["fit", "--help"]) == 0
    first = capsys.readouterr().out
    assert "--trainer.limit_train_batches" in first
    code = "import sys; from unlearn_lightning.main import main; sys.prefix = sys.argv[1]; "
    code += "main(['fit', '--help']); assert 'torch' not in sys.modules"
    kept = subprocess.run([sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, check=True)
    assert kept.stdout == first
    (file,) = tmp_path.rglob("help-fit.txt")
    file.write_text("another version\nold help")
    assert main(["fit", "-h"]) == 0
    assert capsys.readouterr().out == first


@pytest.mark.parametrize("verb", ["study", "status", "report", "export"])
def test_help_of_the_other_verbs_imports_no_torch(verb):
    code = (
        f"import sys; from unlearn_lightning.main import main\ntry: main(['{verb}', '--help'])\nfinally: assert 'torch' not in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert f"unlearn {verb}" in done.stdout


def test_a_mistyped_verb(capsys):
    assert main(["fitt"]) == 2
    assert "Did you mean 'fit'?" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "hint"),
    [
        (["--data", "TofuStge"], "Did you mean 'TofuStage'?"),
        (["--model", "GradientAscend"], "Did you mean 'GradientAscent'?"),
        (["--data.batchsize", "8"], "Did you mean 'batch_size'?"),
        (["--trainer.max_epoch_s", "8"], "Did you mean 'max_epochs'?"),
    ],
)
def test_a_mistyped_class_or_flag_gets_the_nearest_right_name(arguments, hint, capsys):
    base = ["fit", "-c", str(CONFIGS / "stages/tofu.yaml"), "-c", str(CONFIGS / "backbones/tiny-llama.yaml")]
    with pytest.raises(SystemExit):
        main([*base, *arguments])
    error = capsys.readouterr().err
    assert error.strip().splitlines()[-1].endswith(hint), error


@pytest.mark.parametrize(
    ("change", "hint"),
    [
        ({"data": {"class_path": "TofuStage", "init_args": {"batchsize": 8}}}, "'batch_size'"),
        ({"model": {"class_path": "NPo"}}, "'NPO'"),
        ({"trainer": {"max_epoch": 1}}, "'max_epochs'"),
        ({"trainer": {"callbacks": [{"class_path": "ForgetLikelyhood"}]}}, "'ForgetLikelihood'"),
    ],
)
def test_a_mistyped_name_in_a_file(change, hint, tmp_path, capsys):
    file = tmp_path / "wrong.yaml"
    file.write_text(yaml.safe_dump(change))
    with pytest.raises(SystemExit):
        main(["fit", "-c", str(CONFIGS / "stages/tofu.yaml"), "-c", str(CONFIGS / "backbones/tiny-llama.yaml"), "-c", str(file)])
    error = capsys.readouterr().err
    assert error.strip().splitlines()[-1].endswith(f"Did you mean {hint}?"), error


def test_a_setting_of_another_class_names_the_class_that_lacks_it(capsys):
    inner = "{class_path: ForgetLikelihood, init_args: {optimizer: {class_path: torch.optim.AdamW, init_args: {lr: 0.1}}}}"
    with pytest.raises(SystemExit):
        main(["fit", "-c", str(CONFIGS / "stages/tofu.yaml"), f"--trainer.callbacks={inner}"])
    assert "there is no key 'optimizer' in ForgetLikelihood, so that 'optimizer.init_args.lr' cannot be set" in capsys.readouterr().err


def runnable(folder):
    return sorted((CONFIGS / folder).glob("*.yaml"))


def layered(*files):
    from unlearn_lightning.study.study_config import merged

    return merged(*(yaml.safe_load(f.read_text()) for f in files))


TINY = CONFIGS / "backbones/tiny-llama.yaml"


@pytest.mark.parametrize("file", runnable("stages") + runnable("objectives"), ids=lambda f: f.stem)
def test_every_stage_and_objective_config_parses_and_opens_with_its_command(file):
    lines = file.read_text().splitlines()
    assert any(line.startswith(f"#   unlearn fit -c configs/{file.parent.name}/{file.name}") for line in lines[:4])
    Resolver().resolve(layered(file, TINY))


@pytest.mark.parametrize("file", runnable("backbones") + runnable("trainers"), ids=lambda f: f.stem)
def test_every_backbone_and_trainer_config_parses(file):
    assert f"configs/{file.parent.name}/{file.name}" in file.read_text()
    resolved = Resolver().resolve(layered(CONFIGS / "stages/tofu.yaml", TINY, file))
    backbone = resolved["model"]["init_args"]["backbone"]
    assert (backbone["model"] is None) == ("hidden" in file.read_text())


@pytest.mark.parametrize("file", runnable("objectives"), ids=lambda f: f.stem)
def test_objective_configs_state_all_hyperparameters_of_their_class(file):
    """Another class in a file's place takes its own defaults for the rest, so a file says all that its own class can be given."""
    stated = set(yaml.safe_load(file.read_text())["model"]["init_args"])
    resolved = Resolver().resolve(layered(file, TINY))["model"]["init_args"]
    assert set(resolved) - stated == {"backbone"} or set(resolved) - stated == {"backbone", "cache_reference"}


def printed_config(capsys, *arguments):
    with pytest.raises(SystemExit):
        main(["fit", *arguments, "--print_config"])
    return yaml.safe_load(capsys.readouterr().out)


def test_flags_environment_and_files_in_that_order(tmp_path, corpus, questions, capsys, monkeypatch):
    file = tmp_path / "run.yaml"
    file.write_text(yaml.safe_dump(settings(corpus, questions, tmp_path / "run")))
    printed = printed_config(capsys, "-c", str(file), "--data.batch_size", "4", "--data.micro_batch_size", "null")
    assert printed["data"]["init_args"]["batch_size"] == 4
    monkeypatch.setenv("UNLEARN_FIT__CHECKPOINT_EVERY_N_STEPS", "7")
    monkeypatch.setenv("UNLEARN_FIT__TRAINER__LOG_EVERY_N_STEPS", "3")
    monkeypatch.setenv("UNLEARN_FIT__TRAINER__MAX_STEPS", "99")
    printed = printed_config(capsys, "-c", str(file))
    assert printed["checkpoint_every_n_steps"] == 7
    assert printed["trainer"]["log_every_n_steps"] == 3
    assert printed["trainer"]["max_steps"] == 5, "a file comes before the environment"


def test_lora_can_be_switched_off_by_a_flag(tmp_path, corpus, questions, capsys):
    file = tmp_path / "run.yaml"
    config = settings(corpus, questions, tmp_path / "run", model={"init_args": {"backbone": {"lora": {"rank": 2}}}})
    file.write_text(yaml.safe_dump(config))
    off = printed_config(capsys, "-c", str(file), "--model.backbone.lora", "null")
    assert off["model"]["init_args"]["backbone"]["lora"] is None
    other = printed_config(capsys, "-c", str(file), "--model.backbone.lora.rank", "3")
    assert other["model"]["init_args"]["backbone"]["lora"]["rank"] == 3


def test_a_written_configuration_repeats_the_run(corpus, questions, tmp_path):
    cli = fit(settings(corpus, questions, tmp_path / "run"))
    again = yaml.safe_load((tmp_path / "run" / "config.yaml").read_text())
    again["run_folder"] = str(tmp_path / "again")
    assert fit(again).key == cli.key
    from study_runs import weights

    for key, value in weights(tmp_path / "run").items():
        assert (weights(tmp_path / "again")[key] == value).all()


def test_a_finished_run_is_not_trained_twice(corpus, questions, tmp_path, capsys):
    config = settings(corpus, questions, tmp_path / "run")
    fit(config)
    before = (tmp_path / "run" / "run.json").read_text()
    fit(config)
    assert (tmp_path / "run" / "run.json").read_text() == before
    config["trainer"]["max_steps"] = 4
    with pytest.raises(ValueError, match="holds a run with other settings or data"):
        fit(config)


def test_a_run_without_an_optimizer_has_a_named_default_and_the_same_key_everywhere(corpus, questions, tmp_path):
    config = settings(corpus, questions, tmp_path / "run", "NPO")
    del config["model"]["init_args"]["optimizer"]
    cli = fit(config)
    written = yaml.safe_load((tmp_path / "run" / "config.yaml").read_text())
    assert written["model"]["init_args"]["optimizer"]["class_path"].endswith("PaperAdamW")
    assert cli.trainer.optimizers[0].defaults["lr"] == 1e-5
    file = tmp_path / "run.yaml"
    file.write_text(yaml.safe_dump({**config, "run_folder": None}))
    assert command("fit", "-c", str(file), cwd=tmp_path)[0] == 0
    assert list((tmp_path / "runs").glob(f"NPO-ChatStage-{cli.key[:12]}"))


def test_validate_never_writes_into_a_training_run(corpus, questions, tmp_path):
    fit(settings(corpus, questions, tmp_path / "run"))
    before = (tmp_path / "run" / "metrics.csv").read_text()
    status, said = command("validate", "-c", str(tmp_path / "run" / "config.yaml"))
    assert status == 1
    assert "holds a training run" in said
    assert (tmp_path / "run" / "metrics.csv").read_text() == before


def test_two_probes_of_one_name_and_endless_training_are_refused(corpus, questions, tmp_path):
    retain = {"class_path": "RetainLikelihood", "init_args": {"limit": 1}}
    with pytest.raises(ValueError, match="Several probes are named 'retain'"):
        fit(settings(corpus, questions, tmp_path / "a", trainer={"callbacks": [retain, retain]}))
    with pytest.raises(ValueError, match=r"set trainer\.max_epochs or trainer\.max_steps"):
        fit(settings(corpus, questions, tmp_path / "b", trainer={"max_steps": -1, "max_epochs": -1}))


def test_a_probe_without_data_measures_the_stage_that_is_trained_on(corpus, questions, tmp_path):
    from unlearn_lightning.records import read_records

    retain = {"class_path": "RetainLikelihood", "init_args": {"limit": 2}}
    fit(settings(corpus, questions, tmp_path / "run", trainer={"callbacks": [retain]}))
    assert [row["id"] for row in read_records(tmp_path / "run", "retain")[0]["examples"]] == ["chat-held_out-00000", "chat-held_out-00001"]


def test_a_missing_earlier_run_is_named(corpus, questions, tmp_path):
    backbone = {"model": str(tmp_path / "none" / "model"), "scratch": None}
    with pytest.raises(FileNotFoundError, match=r"no model folder .*none/model"):
        fit(settings(corpus, questions, tmp_path / "run", model={"init_args": {"backbone": backbone}}))
