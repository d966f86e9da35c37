"""TensorBoard and MLflow beside metrics.csv: a small study's runs and report, read back from real event files and a real store."""

import csv
import json
from pathlib import Path

import pytest
import yaml
from study_runs import fit, settings
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.util.tensor_util import make_ndarray
from test_study import small

from unlearn_lightning.cli.resolver import Resolver
from unlearn_lightning.loggers.factory import run_loggers
from unlearn_lightning.main import main
from unlearn_lightning.records import read_study

LOGGERS = Path(__file__).parents[1] / "configs" / "loggers"


def both(folder):
    """One file that names TensorBoard and MLflow as their shipped files do."""
    named = [yaml.safe_load((LOGGERS / f"{name}.yaml").read_text())["trainer"]["logger"] for name in ("tensorboard", "mlflow")]
    (folder / "both.yaml").write_text(yaml.safe_dump({"trainer": {"logger": named}}))
    return "both.yaml"


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    """A study of three runs logged to both, made by the command, with W&B switched off."""
    folder = tmp_path_factory.mktemp("logged")
    corpus = folder / "corpus.jsonl"
    corpus.write_text('{"text": "Who wrote the blue book? Ann wrote it in 1987. Sorry, I can not assist you with this question."}')
    questions = folder / "questions.jsonl"
    questions.write_text("\n".join(json.dumps({"prompt": f"Who wrote book {i}?", "response": "Ann wrote it."}) for i in range(19)))
    config = small(str(corpus), str(questions), retrained=False, order=["inst"], positions=[2], base=None)
    config["objectives"] = {"npo": config["objectives"]["npo"]}
    (folder / "study.yaml").write_text(yaml.safe_dump(config))
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        assert main(["study", "study.yaml", "--logger", both(folder), "--jobs", "1"]) == 0
    return folder


def run_folders(study):
    (listed,) = study.glob("runs/*/study.json")
    return {run["name"]: (listed.parent / run["folder"]).resolve() for run in read_study(listed.parent)["runs"]}


def rows_of(run_folder):
    with (run_folder / "metrics.csv").open() as file:
        return [{key: value for key, value in row.items() if value} for row in csv.DictReader(file)]


def logged(run_folder, column):
    return {int(row["step"]): float(row[column]) for row in rows_of(run_folder) if column in row}


def logged_columns(run_folder):
    columns = {column for row in rows_of(run_folder) for column in row if "/" in column}
    assert "train/loss" in columns
    return columns


def events(folder):
    found = EventAccumulator(str(folder), size_guidance={"tensors": 0, "images": 0, "scalars": 0})
    found.Reload()
    return found


def text(found, tag):
    return make_ndarray(found.Tensors(f"{tag}/text_summary")[0].tensor_proto).item().decode()


def test_tensorboard_has_every_number_and_the_whole_configuration(study):
    for folder in run_folders(study).values():
        found = events(folder / "tensorboard")
        for column in logged_columns(folder):
            assert {e.step: e.value for e in found.Scalars(column)} == pytest.approx(logged(folder, column), rel=1e-6), column
        shown = "\n".join(line.removeprefix("    ") for line in text(found, "config").splitlines())
        assert yaml.safe_load(shown) == yaml.safe_load((folder / "config.yaml").read_text())


def test_tensorboard_has_the_reports_tables_and_figures(study):
    (folder,) = (path.parent for path in study.glob("runs/*/study.json"))
    found = events(folder / "tensorboard")
    report = folder / "report"
    for tag in found.Tags()["images"]:
        assert found.Images(tag)[0].encoded_image_string == (report / f"{tag}.png").read_bytes()
    assert {f"{tag}.png" for tag in found.Tags()["images"]} == {f"figures/{path.name}" for path in report.glob("figures/*.png")}
    closing = text(found, "tables/closing")
    with (report / "table.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(closing.splitlines()) == 2 + len(rows)
    assert all(f"| {row['label']} " in closing for row in rows)


def test_mlflow_has_runs_configuration_tables_and_figures(study):
    from mlflow.tracking import MlflowClient

    client = MlflowClient(f"sqlite:///{study}/runs/mlflow.db")
    experiment = client.get_experiment_by_name("unlearn_lightning")
    runs = {run.info.run_name: run for run in client.search_runs([experiment.experiment_id])}
    folders = run_folders(study)
    assert set(runs) == {*folders, f"{small('', '')['name']} report"}
    for name, folder in folders.items():
        for column in logged_columns(folder):
            history = {m.step: m.value for m in client.get_metric_history(runs[name].info.run_id, column)}
            assert history == pytest.approx(logged(folder, column)), column
        kept = Path(runs[name].info.artifact_uri) / "config.yaml"
        assert yaml.safe_load(kept.read_text()) == yaml.safe_load((folder / "config.yaml").read_text())
        assert runs[name].info.status == "FINISHED"
        assert runs[name].data.tags["seed"] == "0"
        assert runs[name].data.params["model/class_path"].startswith("unlearn_lightning.")
    report = runs[f"{small('', '')['name']} report"]
    artifacts = Path(report.info.artifact_uri)
    closing = json.loads((artifacts / "tables/closing.json").read_text())
    assert "forget_score" in closing["columns"]
    assert (artifacts / "index.html").is_file()
    assert list(artifacts.glob("figures/*.png"))
    assert report.data.tags["group"] == runs[next(iter(folders))].data.tags["group"]


def test_a_loggers_key_is_neutral(corpus, questions, tmp_path):
    from unlearn_lightning.runs.run_key import run_key

    keys = set()
    for file in sorted(LOGGERS.glob("*.yaml")):
        config = settings(corpus, questions, tmp_path / "run", trainer=yaml.safe_load(file.read_text())["trainer"])
        keys.add(run_key(Resolver().resolve(config))[0])
        assert f"-c configs/loggers/{file.name}" in file.read_text().splitlines()[1]
    assert len(keys) == 1


def test_metrics_csv_is_written_without_any_logger(corpus, questions, tmp_path):
    fit(settings(corpus, questions, tmp_path / "run", trainer={"logger": False, "max_steps": 1}))
    assert (tmp_path / "run" / "metrics.csv").read_text().count("\n") == 2


def test_a_missing_package_is_named(tmp_path, monkeypatch):
    import lightning.pytorch.loggers.mlflow as theirs

    monkeypatch.setattr(theirs, "_MLFLOW_AVAILABLE", None)
    configured = {"trainer": {"logger": {"class_path": "lightning.pytorch.loggers.MLFlowLogger", "init_args": {"tracking_uri": "file:x"}}}}
    with pytest.raises(ValueError, match=r"MLFlowLogger needs a package .*pip install -e '\.\[loggers\]'"):
        run_loggers(tmp_path, configured, {})
