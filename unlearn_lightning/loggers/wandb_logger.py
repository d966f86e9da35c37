"""What W&B gets beside a run's numbers: example answers as a table, and the run's model as an artifact where `log_model` asks for it.

--trainer.logger WandbLogger --trainer.logger.log_model true

Lightning's logger already makes the optimizer step (`trainer/global_step`) the x axis of every metric.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import lightning.pytorch as pl
from lightning.pytorch.loggers import WandbLogger
from lightning.pytorch.trainer.states import TrainerFn
from lightning.pytorch.utilities.rank_zero import rank_zero_warn

from unlearn_lightning.records import Quantity, number, read_json, record_paths

LIGHTNINGS = ("lightning.pytorch.loggers.WandbLogger", "lightning.pytorch.loggers.wandb.WandbLogger")
ANSWERS = ["step", "id", "prompt", "answer"]
MEASURED = ["metric", "quantity", "unit", "better", "first", "last"]


class RunInWandb(WandbLogger):
    """Lightning's W&B logger for a run folder.

    Attributes:
        logs_result: whether the run's adapter or model goes to W&B at its end, offline too; Lightning's own `log_model` means checkpoints,
            of which a finished run has none.
    """

    logs_result: bool = False

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        # A run's last numbers stand in the closing table, with their units.
        quiet_end = {"max_end_of_run_history_metrics": 0, "max_end_of_run_summary_metrics": 0}
        super().__init__(*args, **{"settings": quiet_end, **kwargs})
        # Lightning hands W&B a setting that W&B 0.31 has given up, and warns of in each run. Lightning has no public way to leave it out.
        if self._wandb_init.get("anonymous") is None:
            self._wandb_init.pop("anonymous", None)

    def log_result(self, folder: Path) -> None:
        """Logs the run's adapter or model as an artifact; the files are read where they lie and not copied."""
        import wandb

        (result,) = [path for name in ("adapter", "model") if (path := folder / name).is_dir()]
        artifact = wandb.Artifact(f"{result.name}-{self.experiment.id}", type="model", metadata={"run_folder": str(folder)})
        artifact.add_dir(str(result), policy="immutable", skip_cache=True)
        self.experiment.log_artifact(artifact, aliases=["final"])


class ToWandb(pl.Callback):
    """Logs what the run folder holds: probes' example answers at the start and at the end, what they measured, and the result.

    Args:
        folder: the run folder.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def on_train_start(self, trainer: pl.Trainer, pl_module: Any) -> None:
        """Logs the answers before the first step, which the probes have recorded by now."""
        if trainer.global_step == 0:
            self._log_tables(trainer, answers_only=True)

    def on_fit_end(self, trainer: pl.Trainer, pl_module: Any) -> None:
        """Logs first and last answers in one table, and the model."""
        self._log_tables(trainer)
        for logger in trainer.loggers if trainer.is_global_zero else ():
            if isinstance(logger, RunInWandb) and logger.logs_result:
                logger.log_result(self.folder)

    def on_validation_end(self, trainer: pl.Trainer, pl_module: Any) -> None:
        """Logs what `unlearn validate` measured."""
        if trainer.state.fn == TrainerFn.VALIDATING:
            self._log_tables(trainer)

    def on_test_end(self, trainer: pl.Trainer, pl_module: Any) -> None:
        """Logs what `unlearn test` measured."""
        self._log_tables(trainer)

    def _log_tables(self, trainer: pl.Trainer, answers_only: bool = False) -> None:
        loggers = [logger for logger in trainer.loggers if isinstance(logger, WandbLogger)]
        if not (trainer.is_global_zero and loggers):
            return
        records = first_and_last(self.folder)
        tables = {f"answers/{probe}": (ANSWERS, rows) for probe, found in records.items() if (rows := answers(found))}
        if records and not answers_only:
            tables["measured"] = (MEASURED, [row for found in records.values() for row in measured(found)])
        for name, (columns, rows) in tables.items():
            for logger in loggers:
                logger.log_table(name, columns, rows, step=trainer.global_step)


def first_and_last(folder: Path) -> dict[str, list[dict[str, Any]]]:
    """The first and the last record of each probe, or its only one, by the probe's name; one that cannot be read is named and left out."""
    found: dict[str, list[dict[str, Any]]] = {}
    for probe in sorted((folder / "records").glob("*")):
        files = record_paths(folder, probe.name)
        for file in dict.fromkeys([*files[:1], *files[-1:]]):
            try:
                found.setdefault(probe.name, []).append(read_json(file))
            except (ValueError, OSError) as error:
                # A table for the reader is no reason to fail a run that is done.
                rank_zero_warn(f"Not logged to W&B: {error}")
    return found


def answers(records: list[dict[str, Any]]) -> list[list[Any]]:
    """Rows of ANSWERS; none where the probe generates no texts."""
    rows = []
    for record in records:
        field = record["answer_field"]
        for row in record["examples"] if field else ():
            texts = row[field] if isinstance(row[field], list) else [row[field]]
            rows += [[record["step"], str(row["id"]), row["text"], str(text)] for text in texts]
    return rows


def measured(records: list[dict[str, Any]]) -> list[list[Any]]:
    """Rows of MEASURED, each metric with its unit."""
    rows = []
    for metric, value in records[-1]["metrics"].items():
        quantity = Quantity.of(records[-1], metric)
        first = records[0]["metrics"].get(metric, value)
        rows.append([metric, quantity.title, quantity.unit, quantity.better or "", number(first), number(value)])
    return rows
