"""What probes share that compare a model with the retrained one by both models' records of the same examples."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

from callbacks.probe import Probe, Row
from unlearn_lightning.data import StageData
from unlearn_lightning.records import last_record


class Compared(Probe):
    """A probe that gives further metrics where a retrained model's records of it are named.

    Without them it records what it measures, for later runs and for the report, which finds the retrained model of a study by itself.

    Args:
        data: the stage the probe examples come from; null for the one that `of` names.
        retrained: run folder of the model trained without the forget stage; its last record of this probe counts at every step.
    """

    compares: ClassVar[str] = "records"

    def __init__(self, data: StageData | None = None, *, retrained: str | None = None, **kwargs: Any) -> None:
        super().__init__(data, **kwargs)
        self.retrained = retrained

    def check(self, pl_module: Any) -> None:
        """Refuses a retrained model without records of this probe, or with records of other examples.

        Raises:
            FileNotFoundError, ValueError: such a model.
        """
        if self.retrained is None:
            return
        rows = self.retrained_rows()
        if rows is None:
            raise FileNotFoundError(
                f"{type(self).__name__}: the run {self.retrained} has no records of probe {self.name!r}. It must be measured first: "
                f"`unlearn validate {self.retrained} --trainer.callbacks+ ...`, or name it by --against, which measures it."
            )
        if [row["id"] for row in rows] != [example.id for example in self.examples]:
            raise ValueError(
                f"{type(self).__name__}: the retrained model {self.retrained} was measured on {len(rows)} examples, which are not the "
                f"{len(self.examples)} of probe {self.name!r} here. Measure both on the same data, split and limit."
            )

    def retrained_rows(self) -> list[Row] | None:
        """The retrained model's rows; null where no such model is named, or it has no record of this probe."""
        record = last_record(Path(self.retrained), self.name) if self.retrained is not None else None
        return None if record is None else list(record["examples"])
