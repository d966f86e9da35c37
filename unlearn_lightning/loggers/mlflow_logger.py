"""Lightning's MLflow logger for a run that may be stopped and go on: the same MLflow run again, and no number in it twice.

logger = RunInMLflow(experiment_name="unlearn_lightning", tracking_uri="sqlite:///runs/mlflow.db")
logger.logged_as = "3f9c0d1e5a7b2846"          # by which the run is found again, as its tag `run_id`
"""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Mapping
from typing import Any

from lightning.fabric.utilities import logger as lightning_logger
from lightning.pytorch.loggers import MLFlowLogger
from lightning.pytorch.loggers.logger import rank_zero_experiment
from lightning.pytorch.utilities.rank_zero import rank_zero_only
from typing_extensions import override

TAG = "run_id"


def flat(params: dict[str, Any] | Namespace) -> dict[str, Any]:
    """The parameters by the names under which Lightning's MLflow logger logs them, nested ones joined.

    Lightning 2.6 has no public function for it, and other names than its own would not be found in the store.
    """
    return lightning_logger._flatten_dict(lightning_logger._convert_params(params))


class RunInMLflow(MLFlowLogger):
    """Looks for the run before it makes one. MLflow takes nothing back, so what was logged before the stop stays as it is.

    Lightning 2.6 keeps client, experiment, run and prefix of its logger under private names. A run's id may be given to the constructor,
    but a run is looked for later, when its folder is known.

    Attributes:
        logged_as: the run's id; null for a run of its own.
    """

    logged_as: str | None = None
    # What the store had of this run before this process.
    _before: Any = None
    _steps_before: dict[str, set[int]]

    @property
    @rank_zero_experiment
    def experiment(self) -> Any:
        """The client; at first use the run is found or made."""
        if not self._initialized and self.logged_as and self._run_id is None:
            # Looked for in the store, where a note of its own would not follow a change of server or experiment.
            self.tags = {**(self.tags or {}), TAG: self.logged_as}
            known = self._mlflow_client.get_experiment_by_name(self._experiment_name)
            found = self._mlflow_client.search_runs([known.experiment_id], f"tags.{TAG} = '{self.logged_as}'") if known else []
            if found:
                self._run_id = found[0].info.run_id
                self._mlflow_client.update_run(self._run_id, status="RUNNING")
                self._before, self._steps_before = found[0].data, {}
        return super().experiment

    @override
    @rank_zero_only
    def log_hyperparams(self, params: dict[str, Any] | Namespace) -> None:
        """Logs those that are not there; MLflow refuses another value of one, such as of devices. config.yaml says what holds now."""
        _ = self.experiment
        there = self._before.params if self._before else {}
        super().log_hyperparams({name: value for name, value in flat(params).items() if name not in there})

    @override
    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Logs what is not there at this step."""
        _ = self.experiment
        new = {name: value for name, value in metrics.items() if (step or 0) not in self._there(name)}
        if new:
            super().log_metrics(new, step)

    def _there(self, name: str) -> set[int]:
        name = f"{self._prefix}{self.LOGGER_JOIN_CHAR}{name}" if self._prefix else name
        if self._before is None or name not in self._before.metrics:
            return set()
        if name not in self._steps_before:
            self._steps_before[name] = {metric.step for metric in self._mlflow_client.get_metric_history(str(self.run_id), name)}
        return self._steps_before[name]
