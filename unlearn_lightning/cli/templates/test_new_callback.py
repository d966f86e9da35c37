"""NewCallback: by hand, and in a run of one step."""

import sys
from pathlib import Path

import pytest

from unlearn_lightning.cli.lightning_cli import run
from unlearn_lightning.records import read_records

# The module lies beside this file, or in the folder above where this file was moved to tests/.
sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parents[1])]
from new_callback import NewCallback  # noqa: E402

RUN = (
    "fit -c configs/stages/tofu.yaml -c configs/backbones/tiny-llama.yaml -c configs/trainers/cpu.yaml -c configs/loggers/csv.yaml "
    "--trainer.callbacks+ new_callback.NewCallback --trainer.callbacks.limit 4 --trainer.max_steps 1 --data.batch_size 8"
)


def test_the_mean_is_over_examples():
    rows = [{"least_token_log_lik": -1.0}, {"least_token_log_lik": -4.0}]
    assert NewCallback().metrics(rows) == {"new_callback/least_token_log_lik": -2.5}


def test_a_run_measures_each_example_before_and_after(tmp_path):
    run([*RUN.split(), "--run_folder", str(tmp_path / "run")])
    before, after = read_records(tmp_path / "run", "new_callback").values()
    assert len({row["id"] for row in before["examples"]}) == 4
    # The model knows none of these authors: a response's weakest token is less likely than 1 of its 1024, log(1/1024) = -6.9 nats.
    assert before["metrics"]["new_callback/least_token_log_lik"] < -6.9
    assert before["metrics"] != pytest.approx(after["metrics"], abs=1e-9)
