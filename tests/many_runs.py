"""What each process of tests/test_processes.py does: all runs of a list, one after another, in one process group.

torchrun --nnodes 2 ... tests/many_runs.py LIST.json      # [{"config": {...}, "verb": "fit", "stop": 3, "spoil": null}, ...]
"""

import json
import os
import sys
from pathlib import Path

import torch

torch.set_num_threads(1)

from test_stopped_runs import Stop, StopAt  # noqa: E402

from unlearn_lightning.cli import lightning_cli  # noqa: E402
from unlearn_lightning.inference import cross_entropy  # noqa: E402
from unlearn_lightning.modules import CausalLMModule  # noqa: E402

_plain_step = CausalLMModule.training_step


def run(entry):
    """One run: to its end, or to a step where it is stopped or its loss is spoiled on the last process alone."""
    config, verb, rank = entry["config"], entry.get("verb", "fit"), int(os.environ.get("RANK", os.environ.get("SLURM_PROCID", "0")))

    def spoiled(self, batch, batch_idx):
        bad = self.trainer.global_step + 1 == entry.get("spoil") and rank == 1
        return _plain_step(self, batch, batch_idx) * (float("nan") if bad else 1.0)

    CausalLMModule.training_step = spoiled if entry.get("spoil") else _plain_step
    try:
        lightning_cli.run({"subcommand": verb, verb: config}, callbacks=[StopAt(entry["stop"])] if entry.get("stop") else [])
    except Stop:
        pass
    except (FloatingPointError, ValueError) as error:
        folder = Path(config["run_folder"])
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"error{rank}.txt").write_text(f"{type(error).__name__}: {error}")


def run_all(entries):
    """All runs, one after another, in this process's group."""
    # Three places at a time, so that `cross_entropy: chunked` has several pieces.
    cross_entropy.CHUNK = 3 * 320
    for entry in entries:
        run(entry)
        print(entry["config"]["run_folder"], flush=True)


if __name__ == "__main__":
    run_all(json.loads(Path(sys.argv[1]).read_text()))
