"""NewObjective: by hand, and in a run of three steps on the same eight examples."""

import csv
import sys
from pathlib import Path

import torch

from unlearn_lightning.cli.lightning_cli import run

# The module lies beside this file, or in the folder above where this file was moved to tests/.
sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parents[1])]
from new_objective import new_objective_loss  # noqa: E402

RUN = (
    "fit -c configs/stages/safety.yaml -c configs/backbones/tiny-llama.yaml -c configs/trainers/cpu.yaml -c configs/loggers/csv.yaml "
    "--model new_objective.NewObjective --model.optimizer.lr 1e-3 --model.floor 1000 "
    "--trainer.max_epochs 3 --data.train_examples 8 --data.batch_size 8"
)


def test_below_the_floor_the_loss_is_flat():
    log_lik = torch.tensor([-3.0, -7.0], requires_grad=True)
    loss = new_objective_loss(log_lik, floor=5.0)
    assert loss.tolist() == [-3.0, -5.0]
    loss.sum().backward()
    assert log_lik.grad.tolist() == [1.0, 0.0]


def test_a_run_makes_the_forget_set_less_likely(tmp_path):
    run([*RUN.split(), "--run_folder", str(tmp_path / "run")])
    with (tmp_path / "run" / "metrics.csv").open() as file:
        losses = [float(row["train/loss"]) for row in csv.DictReader(file) if row["train/loss"]]
    assert 0 > losses[0] > losses[1] > losses[2]
