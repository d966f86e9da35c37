"""A report as one W&B run, grouped with the study's runs; in a sweep it is the trial's run."""

from pathlib import Path
from typing import Any

from unlearn_lightning.loggers import wandb_settings
from unlearn_lightning.loggers.logged_report import LoggedReport


def log(report: LoggedReport, settings: dict[str, Any]) -> str:
    """Logs tables, figures and verdict; the run's folder lies in the study folder.

    Args:
        report: what is logged.
        settings: of the runs' WandbLogger; `project` and `entity` count.
    """
    if wandb_settings.is_disabled():
        return "Not uploaded: WANDB_MODE is disabled."
    import wandb

    shown: dict[str, Any] = {f"tables/{name}": wandb.Table([*table.header()], table.plain()) for name, table in report.tables.items()}
    shown |= {f"figures/{name}": wandb.Image(str(path)) for name, path in report.figures.items()}
    run = wandb.init(
        project=settings.get("project") or wandb_settings.project(), entity=settings.get("entity"), group=report.study.name,
        job_type="report", name=f"{report.study.name} report", dir=str(report.study.folder),
        config={**report.config, **wandb_settings.trial_parameters()},
        mode="offline" if settings.get("offline") or wandb_settings.is_offline() else "online", reinit="create_new",
        settings=wandb.Settings(silent=True, console="off", x_disable_stats=True, x_disable_meta=True, **wandb_settings.trial_settings()),
    )  # fmt: skip
    run.log(shown)
    run.summary.update({"headline": report.verdict.headline, "agrees": report.verdict.agrees, **report.compared})
    run.finish()
    return f"W&B run: {Path(run.dir).parent}"
