"""How a stopped or killed run goes on: the whole way in its order, and for each step the function that takes it.

A checkpoint is written (checkpoint.py):
 1. `ResumeCheckpoint` writes RUN/checkpoints/last.ckpt every `checkpoint_every_n_steps` optimizer steps, never after the last one, and
    when the process is asked to stop (preemption.py). `WholeFileIO` makes sure that the file is whole or not there.
 2. These are its keys and who writes and reads each. No random state is among them, because data order and dropout follow from seed,
    epoch and micro-batch.
      state_dict           CausalLMModule: the trained weights, whole tensors also under FSDP2
      tokens_seen          CausalLMModule: training tokens of all processes
      reference_log_lik    Unlearning: the cached reference, which the moved weights could not give again; null where there is none
      gradient_weight      Unlearning: the weight of the first step's gradient and the step at which it was spent
      reference_logits     Unlearning: the starting model's predictions, where an objective with all weights trained compares with them
      reference_activations    RMU: the starting model's activations on the retain data, where all weights are trained
      multiplier           PDU: the weight of the retain loss
      subspaces            PGU: the directions that updates leave alone, and what the weights said of them
      callbacks            Probe: the first values and the step measured last; RunRecorder: the seconds so far; Lightning's and yours
      pace                 Resume: micro-batches per optimizer step and per epoch, in which Lightning's `loops` count
      metrics              Resume: how many rows metrics.csv has, and the one that Lightning writes only after the checkpoint
      loops                Lightning: epochs, steps and micro-batches done
      optimizer_states     Lightning
      lr_schedulers        Lightning
      epoch                Lightning
      global_step          Lightning: optimizer steps done
      pytorch-lightning_version    Lightning

The same command is given again (cli/unlearn_cli.py):
 3. `UnlearnCLI._run_subcommand` locks the run folder. `runs.run_folder.claim` refuses the folder of another run. A finished run ends here.
 4. `checkpoint_to_resume` chooses the file; where there is none, the run begins anew.
 5. `loggers.resume.logged_run` finds the id by which W&B and MLflow know the run, and `first_step_again` tells TensorBoard what to hide.
 6. Lightning sets up data and callbacks, builds the net, and reads the file, of which nothing is ever unpickled.
 7. `CausalLMModule.on_load_checkpoint` refuses other weights than this run trains; `Unlearning` takes its reference from the file.
 8. `Resume.on_load_checkpoint` converts Lightning's progress to this run's pace (`fit_loops`), takes metrics.csv back to the checkpoint,
    and `loggers.resume.ResumeInLoggers` logs again what the other loggers lack. `Probe` and `RunRecorder` read their own state.
 9. Lightning restores loops, optimizers and schedules.
10. `Unlearning.on_train_start` finds its reference, or computes it where the run was stopped before the first checkpoint. What an
    objective computes of the starting model there (activations, subspaces) it does the same way; a task vector's start weights are those
    that were read when the net was built.
    `Probe.on_train_start` measures the step in whose measurement the run was stopped.
11. `StageData.train_dataloader` starts behind the last micro-batch that was trained on. `CausalLMModule.on_train_batch_start` raises an
    error where the data is elsewhere.
12. `RunRecorder.on_fit_end` deletes the checkpoints of the finished run.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch

from unlearn_lightning.runs.checkpoint import check_undamaged, last_checkpoint
from unlearn_lightning.runs.metrics_file import own_metrics

# What a checkpoint says of metrics.csv where there is no checkpoint.
BEGINNING = {"rows": 0, "step": 0, "last": {}}


def checkpoint_to_resume(folder: Path, given: str | None) -> str | None:
    """The checkpoint that a run goes on from.

    Args:
        folder: the run folder.
        given: the configured `ckpt_path`, which goes before the folder's own checkpoint.

    Returns:
        Its path, or one of Lightning's words for a path; None where the run begins anew.

    Raises:
        ValueError: the file is damaged.
    """
    own = last_checkpoint(folder)
    chosen = str(own) if given is None and own.is_file() else given
    if chosen is not None and Path(chosen).is_file():
        check_undamaged(Path(chosen))
    return chosen


def first_step_again(checkpoint: Path | None) -> int:
    """The first step that is logged again by a run that goes on from a checkpoint: the first of all where there is no such file."""
    if checkpoint is None or not checkpoint.is_file():
        return 0
    # The file is mapped and not read, because only this number is wanted. Part of the checkpoint's own step is logged behind it.
    return max(0, int(torch.load(checkpoint, map_location="cpu", mmap=True, weights_only=True)["global_step"]) - 1)


class Resume(pl.Callback):
    """Keeps in a checkpoint what Lightning does not, and takes progress and metrics.csv back to it.

    Lightning restores callbacks before `on_fit_start`, but under FSDP2 after it. Either order does.

    Args:
        checkpoint: the file that the run goes on from, as `checkpoint_to_resume` gives it; null for a run that begins.
    """

    def __init__(self, checkpoint: str | None) -> None:
        self.checkpoint = checkpoint
        self._is_back = False

    def on_save_checkpoint(self, trainer: pl.Trainer, pl_module: Any, checkpoint: dict[str, Any]) -> None:
        """Adds the pace, and the length of metrics.csv, which is written out so that a kill loses no row that will not come again."""
        checkpoint["pace"] = asdict(pace_of(trainer))
        for logger in own_metrics(trainer) if trainer.is_global_zero else ():
            logger.save()
            # Lightning writes what others log of this step behind the checkpoint; the module's own loss is written before it.
            logged = trainer.global_step % trainer.log_every_n_steps == 0  # type: ignore[attr-defined]
            last = {name: float(value) for name, value in trainer.logged_metrics.items()} if logged else {}
            last = {"epoch": trainer.current_epoch, **last} if last else {}
            checkpoint["metrics"] = {"rows": logger.experiment.written, "step": trainer.global_step - 1, "last": last}

    def on_load_checkpoint(self, trainer: pl.Trainer, pl_module: Any, checkpoint: dict[str, Any]) -> None:
        """Converts the progress, in place, before Lightning restores its loops from it, and takes the numbers back.

        Raises:
            ValueError: the checkpoint was written inside an optimizer step.
        """
        fit_loops(checkpoint["loops"]["fit_loop"], Pace(**checkpoint["pace"]), pace_of(trainer))
        self._take_back(trainer, checkpoint.get("metrics", BEGINNING))

    def on_fit_start(self, trainer: pl.Trainer, pl_module: Any) -> None:
        """Takes the numbers back to the beginning where there is no checkpoint, or none was found where it should be."""
        is_to_come = self.checkpoint is not None and trainer.strategy.restore_checkpoint_after_setup
        if not self._is_back and not is_to_come:
            self._take_back(trainer, BEGINNING)

    def tell_loggers(self, trainer: pl.Trainer, rows: Callable[[], Iterable[dict[str, Any]]]) -> None:
        """Called on the first process; `rows` gives metrics.csv as it is at the checkpoint, of which other loggers may lack some."""

    def _take_back(self, trainer: pl.Trainer, metrics: dict[str, Any]) -> None:
        self._is_back = True
        if not trainer.is_global_zero:
            return
        files = [logger.experiment for logger in own_metrics(trainer)]
        for file in files:
            file.keep(metrics["rows"])
            if metrics["last"]:
                file.log_metrics(metrics["last"], step=metrics["step"])
        self.tell_loggers(trainer, lambda: (row for file in files for row in itertools.chain(file.rows(), file.metrics)))


@dataclass(frozen=True)
class Pace:
    """How one device goes through an epoch: micro-batches per optimizer step, and per epoch (the last step may have fewer)."""

    accumulation: int
    micro_batches: int


def pace_of(trainer: pl.Trainer) -> Pace:
    """The pace of this run, which its data decides when it is set up."""
    return Pace(trainer.accumulate_grad_batches, trainer.datamodule.micro_batches_per_epoch())  # type: ignore[attr-defined]


def fit_loops(loops: dict[str, Any], saved: Pace, now: Pace) -> None:
    """Rewrites the progress of Lightning's fit loop, in place, so that this run goes on where the checkpoint's run was.

    Args:
        loops: a checkpoint's `["loops"]["fit_loop"]`.
        saved: the pace of the run that wrote the checkpoint.
        now: the pace of this run.

    Raises:
        ValueError: the checkpoint was written inside an optimizer step, whose gradients are lost.
    """
    # After a resumption at an epoch's end Lightning counts one epoch less as begun, and from its next checkpoint it would go wrong.
    # Checkpoints are made inside an epoch: as many are begun as are done, and one.
    for counted in loops["epoch_progress"].values():
        counted["ready"] = counted["started"] = counted["processed"] + 1
    fit_progress(loops["epoch_loop.batch_progress"], saved, now)


def fit_progress(progress: dict[str, Any], saved: Pace, now: Pace) -> None:
    """Rewrites Lightning's counts of micro-batches, in place, from the pace of the interrupted run to this one's.

    Lightning counts micro-batches of one device, of which another number of devices makes more or fewer. A checkpoint is written between
    optimizer steps, and the steps of an epoch are the same for any number of devices, so the steps that are done tell how many
    micro-batches that would have been.

    Raises:
        ValueError: the checkpoint was written inside an optimizer step, whose gradients are lost.
    """
    total, current = progress["total"], progress["current"]
    inside = current["ready"]
    if inside % saved.accumulation and inside != saved.micro_batches:
        raise ValueError(
            f"The checkpoint was written after {inside} micro-batches, in the middle of an optimizer step of {saved.accumulation}: its "
            "gradients are lost. Go on from another checkpoint, such as RUN/checkpoints/last.ckpt."
        )
    # A whole epoch stays a whole epoch, also where its last step is short.
    there = now.micro_batches if inside == saved.micro_batches else inside // saved.accumulation * now.accumulation
    before = (total["ready"] - inside) // saved.micro_batches * now.micro_batches
    for counts, shift in ((current, there - inside), (total, before + there - total["ready"])):
        for name in counts:
            counts[name] += shift
