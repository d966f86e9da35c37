"""Where MLflow runs go, the same for training runs and for reports."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

DATABASE, ARTIFACTS = Path("runs/mlflow.db"), Path("runs/mlflow")


def place(settings: Mapping[str, Any]) -> dict[str, Any]:
    """`tracking_uri` and `artifact_location` of an MLflow logger's settings.

    Where no tracking_uri is set it is MLFLOW_TRACKING_URI, or else a database of this folder, runs/mlflow.db, with runs/mlflow/ for
    artifacts: MLflow itself would choose a folder of files, which it does not write any more.
    """
    uri, artifacts = settings.get("tracking_uri") or os.environ.get("MLFLOW_TRACKING_URI"), settings.get("artifact_location")
    if not uri:
        DATABASE.parent.mkdir(parents=True, exist_ok=True)
        # Absolute, because MLflow remembers stores by their address.
        uri, artifacts = f"sqlite:///{DATABASE.absolute()}", artifacts or str(ARTIFACTS)
    return {"tracking_uri": uri, "artifact_location": artifacts}
