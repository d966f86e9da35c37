"""Nothing that is loaded is executed, and no secret is written down. SECURITY.md says what may be relied on."""

import json
import pickle
import re
import shutil
from pathlib import Path

import pytest
import torch
import wandb
import yaml
from study_runs import fit, settings

from unlearn_lightning.cli import lightning_cli
from unlearn_lightning.cli.secrets import refuse_secrets
from unlearn_lightning.main import main
from unlearn_lightning.models.adapters import load_adapter
from unlearn_lightning.models.backbone import Backbone
from unlearn_lightning.records import is_finished

ROOT = Path(__file__).parents[1]
SECRETS = {"WANDB_API_KEY": "0123456789abcdef" * 2 + "01234567", "HF_TOKEN": "hf_" + "Secret" * 6}


class Bomb:
    """Whoever unpickles it makes a file."""

    def __init__(self, mark):
        self.mark = mark

    def __reduce__(self):
        return Path.touch, (self.mark,)


@pytest.fixture
def mark(tmp_path):
    """The file that exists once something was executed; the fixture has seen that the bomb is a real one."""
    path = tmp_path / "executed"
    pickle.loads(pickle.dumps(Bomb(path)))
    assert path.exists()
    path.unlink()
    return path


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A run of one step with an adapter on a saved model, and one with whole weights."""
    folder = tmp_path_factory.mktemp("trained")
    (folder / "corpus.jsonl").write_text('{"text": "Who wrote the blue book? Ann wrote it."}')
    (folder / "questions.jsonl").write_text("\n".join(f'{{"prompt": "Who wrote {i}?", "response": "Ann."}}' for i in range(8)))
    files = str(folder / "corpus.jsonl"), str(folder / "questions.jsonl")
    fit(settings(*files, folder / "whole", trainer={"max_steps": 1}))
    backbone = {"model": str(folder / "whole/model"), "lora": {"rank": 2, "alpha": 2}}
    fit(settings(*files, folder / "lora", trainer={"max_steps": 1}, model={"init_args": {"backbone": backbone}}))
    return folder


def test_a_pickled_adapter_is_not_read(trained, mark, tmp_path):
    adapter = tmp_path / "adapter"
    shutil.copytree(trained / "lora/adapter", adapter)
    (adapter / "adapter_model.safetensors").unlink()
    torch.save({"weight": Bomb(mark)}, adapter / "adapter_model.bin")
    with pytest.raises(FileNotFoundError, match=r"no adapter_model\.safetensors\. Other formats are pickles"):
        load_adapter(Backbone(model=str(trained / "whole/model"), lora=None).load_base(), str(adapter), trainable=False)
    assert not mark.exists()


def test_a_pickled_model_is_not_read(trained, mark, tmp_path):
    model = tmp_path / "model"
    shutil.copytree(trained / "whole/model", model)
    (model / "model.safetensors").unlink()
    torch.save({"weight": Bomb(mark)}, model / "pytorch_model.bin")
    with pytest.raises(OSError, match="safetensors"):
        Backbone(model=str(model), lora=None).load_base()
    assert not mark.exists()


def test_a_models_own_code_is_not_run(trained, mark, tmp_path):
    model = tmp_path / "model"
    shutil.copytree(trained / "whole/model", model)
    (model / "evil.py").write_text(f"from pathlib import Path\nPath({str(mark)!r}).touch()\nclass Evil: pass\n")
    config = json.loads((model / "config.json").read_text()) | {
        "model_type": "evil",
        "auto_map": {"AutoConfig": "evil.Evil", "AutoModelForCausalLM": "evil.Evil"},
    }
    (model / "config.json").write_text(json.dumps(config))
    with pytest.raises(ValueError, match="custom code"):
        Backbone(model=str(model), lora=None).load_base()
    assert not mark.exists()


class StopAtStep2(lightning_cli.pl.Callback):
    def on_train_batch_start(self, trainer, *_):
        if trainer.global_step == 2:
            raise KeyError("stopped")


@pytest.mark.parametrize("weights_only", [None, False])
def test_a_pickle_in_a_checkpoint_is_not_executed(weights_only, corpus, questions, mark, tmp_path, monkeypatch):
    # Where nobody says otherwise, torch then executes what a checkpoint says.
    monkeypatch.setenv("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", "1")
    config = settings(corpus, questions, tmp_path / "run", checkpoint_every_n_steps=1)
    with pytest.raises(KeyError):
        lightning_cli.run({"subcommand": "fit", "fit": config}, callbacks=[StopAtStep2()])
    checkpoint = tmp_path / "run/checkpoints/last.ckpt"
    torch.save({**torch.load(checkpoint, weights_only=True), "more": Bomb(mark)}, checkpoint)
    with pytest.raises((pickle.UnpicklingError, ValueError)):
        fit({**config, "weights_only": weights_only})
    assert not mark.exists()
    assert not is_finished(tmp_path / "run")


def test_no_source_asks_for_remote_code_or_unpickles():
    for path in [*ROOT.glob("unlearn_lightning/**/*.py"), *ROOT.glob("callbacks/*.py")]:
        source = path.read_text()
        assert not re.search(
            r"trust_remote_code(?!=False)|weights_only=False|import pickle|torch\.load\((?!.*weights_only=True)", source
        ), path
    for path in ROOT.glob("configs/**/*.yaml"):
        assert "trust_remote_code" not in path.read_text(), path


def test_secrets_of_the_environment_are_in_no_file_of_a_run(corpus, questions, tmp_path, monkeypatch, capfd):
    for name, secret in SECRETS.items():
        monkeypatch.setenv(name, secret)
    monkeypatch.setenv("WANDB_MODE", "offline")
    files = [ROOT / f"configs/loggers/{name}.yaml" for name in ("wandb", "tensorboard")]
    loggers = [yaml.safe_load(file.read_text())["trainer"]["logger"] for file in files]
    fit(settings(corpus, questions, tmp_path / "run", trainer={"max_steps": 1, "logger": loggers}))
    wandb.finish()
    files = [path for path in (tmp_path / "run").rglob("*") if path.is_file()]
    assert {"config.yaml", "run.json", "metrics.csv"} < {path.name for path in files}
    assert any(path.suffix == ".wandb" for path in files)
    assert any("tfevents" in path.name for path in files)
    printed = "".join(capfd.readouterr())
    for secret in SECRETS.values():
        assert secret not in printed
        for path in files:
            assert secret.encode() not in path.read_bytes(), path


@pytest.mark.parametrize(
    ("config", "place"),
    [
        ({"trainer": {"logger": [{"init_args": {"api_key": "k-1"}}]}}, r"trainer\.logger\.0\.init_args\.api_key"),
        ({"data": {"hf_token": "k-1"}}, r"data\.hf_token"),
        ({"uri": "https://me:k-1@example.org/mlflow"}, "uri"),
    ],
)
def test_a_secret_in_a_configuration_is_refused_and_not_repeated(config, place):
    with pytest.raises(ValueError, match=f"^{place} holds a key or a password") as refused:
        refuse_secrets(config)
    assert "k-1" not in str(refused.value)


def test_tokens_of_text_and_plain_addresses_are_no_secrets():
    refuse_secrets({"bos_token": "<s>", "max_new_tokens": 5, "api_key": None, "uri": "https://example.org:5000/a@b"})


def test_a_study_with_a_secret_writes_nothing(tmp_path, monkeypatch, capsys):
    logger = {"class_path": "lightning.pytorch.loggers.MLFlowLogger", "init_args": {"tracking_uri": "https://me:k-1@example.org"}}
    study = {**yaml.safe_load((ROOT / "configs/studies/demo.yaml").read_text()), "common": {"trainer": {"logger": logger}}}
    (tmp_path / "study.yaml").write_text(yaml.safe_dump(study))
    monkeypatch.chdir(tmp_path)
    assert main(["study", "study.yaml", "--plan"]) == 2
    told = capsys.readouterr().err
    assert "common.trainer.logger.init_args.tracking_uri holds a key or a password" in told
    assert "k-1" not in told
    assert [path.name for path in tmp_path.iterdir()] == ["study.yaml"]
