"""A report as one MLflow run: tables as MLflow's tables, figures and the page as artifacts."""

from typing import Any

from unlearn_lightning.loggers import mlflow_store
from unlearn_lightning.loggers.logged_report import LoggedReport


def log(report: LoggedReport, settings: dict[str, Any]) -> str:
    """Logs tables, figures, page and verdict into the experiment of the study's runs.

    Args:
        report: what is logged.
        settings: of the runs' MLFlowLogger; `experiment_name`, `tracking_uri` and `artifact_location` count.
    """
    from mlflow.tracking import MlflowClient

    place = mlflow_store.place(settings)
    client = MlflowClient(place["tracking_uri"])
    name = settings.get("experiment_name") or "lightning_logs"
    known = client.get_experiment_by_name(name)
    experiment = known.experiment_id if known else client.create_experiment(name, place["artifact_location"])
    tags = {"group": report.study.name, "job_type": "report", "headline": report.verdict.headline, "agrees": str(report.verdict.agrees)}
    run = client.create_run(experiment, tags=tags, run_name=f"{report.study.name} report").info.run_id
    client.log_dict(run, report.config, "study.yaml")
    for title, table in report.tables.items():
        columns = dict(zip(table.header(), map(list, zip(*table.plain(), strict=True)), strict=True))
        client.log_table(run, columns, f"tables/{title}.json")
    for path in report.figures.values():
        client.log_artifact(run, str(path), "figures")
    for path in report.files:
        if path.name in ("index.html", "table.csv", "table.md"):
            client.log_artifact(run, str(path))
    client.set_terminated(run)
    return f"MLflow: the run '{report.study.name} report' of the experiment {name!r} at {client.tracking_uri}"
