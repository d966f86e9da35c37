"""How far this run's predictions lie from those that other runs recorded, among them the retrained model.

    - class_path: PathDivergence
      init_args: {data: {class_path: SafetyStage}, limit: 32, retrained: runs/retrained, others: {p1: runs/p1-npo}}

A run without `retrained` and `others` only records its predictions, for later runs and the report to compare with.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from callbacks.probe import Probe, Quantity, Row, metric_key
from unlearn_lightning.data import Encoded, Example, StageData, collate
from unlearn_lightning.inference.divergence import squared_distance
from unlearn_lightning.records import last_record, number, read_json, record_path


class PathDivergence(Probe):
    """RE distance: mean over probe examples of the squared distance between per-token log-likelihood vectors, nats squared.

    Args:
        data: the stage whose responses are predicted; null for the one that is trained on.
        retrained: run folder of the model trained without the forget stage; its last record counts at every step.
        others: name -> run folder of runs compared with at the same step (skipped at steps they did not record).
    """

    probe_name = "divergence"
    compares = "records"
    by_length = True

    def __init__(
        self,
        data: StageData | None = None,
        *,
        limit: int | None = 64,
        every_n_steps: int = 1,
        retrained: str | None = None,
        others: Mapping[str, str] | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(data, limit=limit, every_n_steps=every_n_steps, **kwargs)
        self.retrained, self.others = retrained, dict(others or {})
        if retrained is not None and "retrained" in self.others:
            raise ValueError("PathDivergence: the name 'retrained' is taken by the retrained model; rename the other run.")

    def check(self, pl_module: Any) -> None:
        """Refuses a run to compare with that did not record this probe."""
        for name, folder in {**self.others, **({"retrained": self.retrained} if self.retrained else {})}.items():
            if last_record(Path(folder), self.name) is None:
                raise FileNotFoundError(
                    f"PathDivergence: run {name!r} in {folder} has no records of probe {self.name!r}. It must run first, with a "
                    "PathDivergence callback of its own."
                )

    def predict(self, pl_module: Any, examples: Sequence[Example], encoded: Sequence[Encoded], seed: int) -> list[Row]:
        """Each response's vector of per-token log-likelihoods."""
        batch = collate(encoded, pl_module.tokenizer.pad_token_id).to(pl_module.device)
        values = pl_module.token_log_likelihood(batch).float()
        vectors = [row[mask].tolist() for row, mask in zip(values, batch.response_mask, strict=True)]
        return [{"response": e.response, "token_log_lik": vector} for e, vector in zip(examples, vectors, strict=True)]

    def describe(self, metrics: Mapping[str, float]) -> dict[str, Quantity]:
        """One distance for each run that is compared with; small is close to it."""
        names = {key: key.removeprefix(metric_key(self.name, "")) for key in metrics}
        titles = {key: "the retrained model" if name == "retrained" else name for key, name in names.items()}
        return {key: Quantity(f"RE distance to {title}", "nats²", "lower") for key, title in titles.items()}

    def measure(self, trainer: Any, pl_module: Any) -> dict[str, float]:
        """Remembers the step, which decides what the other runs' predictions are."""
        self._step = trainer.global_step
        return super().measure(trainer, pl_module)

    def metrics(self, rows: list[Row]) -> dict[str, float]:
        """The distance to every other run that has a record to compare with."""
        mine, found = predictions(rows), {}
        if self.retrained is not None:
            record = last_record(Path(self.retrained), self.name)
            assert record is not None
            found[metric_key(self.name, "retrained")] = squared_distance(mine, predictions(record["examples"]))
        for name, folder in self.others.items():
            path = record_path(Path(folder), self.name, self._step)
            if path.is_file():
                found[metric_key(self.name, name)] = squared_distance(mine, predictions(read_json(path)["examples"]))
        return found


def predictions(rows: Sequence[Row]) -> dict[str, list[float]]:
    """Example id -> prediction vector."""
    return {row["id"]: [number(value) for value in row["token_log_lik"]] for row in rows}
