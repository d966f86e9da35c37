"""NewStage: its examples, and a run of one step on them."""

import sys
from pathlib import Path

from unlearn_lightning.cli.lightning_cli import run
from unlearn_lightning.records import read_run

# The module lies beside this file, or in the folder above where this file was moved to tests/.
sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parents[1])]
from new_stage import NewStage  # noqa: E402

RUN = (
    "fit -c configs/stages/tofu.yaml -c configs/backbones/tiny-llama.yaml -c configs/trainers/cpu.yaml -c configs/loggers/csv.yaml "
    "--data new_stage.NewStage --data.batch_size 8 --trainer.max_steps 1"
)


def texts(split, **settings):
    return [(example.prompt, example.response) for example in NewStage(**settings).examples(split)]


def test_examples_are_a_function_of_the_seed():
    assert texts("train") == texts("train")
    assert texts("train", data_seed=1) != texts("train", data_seed=2)


def test_nothing_that_is_measured_was_trained_on():
    assert len(texts("train")) == 64
    assert len(texts("held_out")) == 128
    assert not set(texts("train")) & set(texts("held_out"))


def test_a_run_trains_on_it(tmp_path):
    run([*RUN.split(), "--run_folder", str(tmp_path / "run")])
    about = read_run(tmp_path / "run")
    assert (about["status"], about["data"], about["examples"]) == ("finished", "NewStage", 64)
