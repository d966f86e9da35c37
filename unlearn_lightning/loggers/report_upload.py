"""A study's report in the places where its runs were logged: every table and every figure.

upload(build(Path("runs/demo")))        # -> ["W&B run: runs/demo/wandb/offline-run-20260101_120000-abcd1234"]

A place is a function `log(report, settings)`, one a file, that gives a line saying where the report lies there. The runs' own
configurations name the places (`trainer.logger`); runs that name none log to W&B.
"""

from collections.abc import Callable
from typing import Any

from unlearn_lightning.loggers import report_to_mlflow, report_to_tensorboard, report_to_wandb
from unlearn_lightning.loggers.logged_report import LoggedReport
from unlearn_lightning.records.settings import read_yaml


class UploadError(Exception):
    """The report could not be logged; it is written all the same."""


Place = Callable[[LoggedReport, dict[str, Any]], str]
# By the class of the runs' logger. Others show the runs and no report.
PLACES: dict[str, Place] = {
    "WandbLogger": report_to_wandb.log,
    "TensorBoardLogger": report_to_tensorboard.log,
    "MLFlowLogger": report_to_mlflow.log,
}


def upload(report: LoggedReport) -> list[str]:
    """Logs the report where the study's runs were logged, and says in a line for each place where that is; none for no place.

    Raises:
        UploadError: a place could not be reached or refused.
    """
    told = []
    for kind, settings in _places(report):
        try:
            told.append(PLACES[kind](report, settings))
        except Exception as error:
            # Each place has errors of its own, and none of them is worth losing the report that is written already.
            raise UploadError(
                f"{kind} did not take the report ({type(error).__name__}: {error}). The report is in {report.folder}."
            ) from error
    return told


def _places(report: LoggedReport) -> list[tuple[str, dict[str, Any]]]:
    """The loggers of the study's runs that can show a report, each once, with their settings."""
    found: dict[str, dict[str, Any]] = {}
    for run in report.study.runs:
        if not (run.folder / "config.yaml").is_file():
            continue
        configured = read_yaml(run.folder / "config.yaml").get("trainer", {}).get("logger")
        if configured in (None, True):
            configured = {"class_path": "WandbLogger"}
        for one in configured if isinstance(configured, list) else [configured] if configured else []:
            found.setdefault(one["class_path"].rpartition(".")[2], one.get("init_args") or {})
    return [(kind, settings) for kind, settings in found.items() if kind in PLACES]
