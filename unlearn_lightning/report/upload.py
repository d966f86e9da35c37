"""A study's report as one W&B run: every table and every figure, grouped with the study's runs. In a sweep it is the trial's run.

upload(build(Path("runs/demo")))        # -> runs/demo/wandb/offline-run-20260101_120000-abcd1234, or online with an account
"""

import csv
from pathlib import Path
from typing import Any

from unlearn_lightning import wandb_mode
from unlearn_lightning.report.provenance import read_yaml
from unlearn_lightning.report.report import Report


class UploadError(Exception):
    """W&B did not take the report; the report itself is written."""


def upload(report: Report) -> Path | None:
    """Logs the report and returns the folder of its W&B run, which lies in the study folder; None with WANDB_MODE=disabled.

    Raises:
        UploadError: W&B could not be reached or refused.
    """
    if wandb_mode.is_disabled():
        return None
    import wandb

    study = report.study
    header, rows = _closing(report.folder / "table.csv")
    content: dict[str, Any] = {"tables/closing": wandb.Table(header, rows)}
    content |= {f"tables/{name}": wandb.Table([*table.header], table.rows) for name, table in report.tables.items()}
    content |= {f"figures/{path.stem}": wandb.Image(str(path)) for path in report.files if path.suffix == ".png"}
    try:
        run = wandb.init(
            project=wandb_mode.project(), group=study.name, job_type="report", name=f"{study.name} report", dir=str(study.folder),
            config=read_yaml(study.folder / "study.yaml"), mode="offline" if wandb_mode.is_offline() else "online", reinit="create_new",
            settings=wandb.Settings(
                silent=True, console="off", x_disable_stats=True, x_disable_meta=True, **wandb_mode.trial_settings()
            ),
        )  # fmt: skip
        run.log(content)
        run.summary.update({"headline": report.verdict.headline, "agrees": report.verdict.agrees, **report.compared})
        run.finish()
    except wandb.Error as error:
        message = f"W&B did not take the report ({error}). The report is in {report.folder}; WANDB_MODE=offline keeps the W&B run here."
        raise UploadError(message) from None
    return Path(run.dir).parent


def _closing(path: Path) -> tuple[list[str | int], list[list[Any]]]:
    """Header and rows of table.csv, with numbers as numbers and nothing where nothing was measured."""
    with path.open(encoding="utf-8", newline="") as file:
        header, *rows = csv.reader(file)
    text = [header.index(name) for name in ("label", "path", "objective")]
    return [*header], [[cell if index in text else float(cell) if cell else None for index, cell in enumerate(row)] for row in rows]
