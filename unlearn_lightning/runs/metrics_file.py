"""`metrics.csv` of a run folder: every logged value by step, each step once, also where a run was killed and went on.

logger = RunMetrics(run_folder)          # a Lightning CSVLogger; resume.py takes its file back to a checkpoint
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
from lightning.pytorch.loggers import CSVLogger
from lightning.pytorch.loggers.logger import rank_zero_experiment

from unlearn_lightning.records import write_text


class RunMetrics(CSVLogger):
    """Lightning's CSV logger, whose file a resumed run takes back to its checkpoint before it goes on.

    Args:
        folder: the run folder.
    """

    def __init__(self, folder: Path) -> None:
        super().__init__(str(folder), name="", version="")

    @property
    @rank_zero_experiment
    def experiment(self) -> Any:
        """The file; on other processes than the first, nothing that writes."""
        # Lightning 2.6 asks at its end under this name whether there is a file to be written.
        if self._experiment is None:
            self._experiment = MetricsFile(Path(self.root_dir) / "metrics.csv")  # type: ignore[assignment]
        return self._experiment


def own_metrics(trainer: pl.Trainer) -> list[RunMetrics]:
    """The loggers of a trainer that write metrics.csv; there is one, but where a run has none."""
    return [logger for logger in trainer.loggers if isinstance(logger, RunMetrics)]


class MetricsFile:
    """A CSV file with a column for each metric, in alphabetical order.

    Args:
        path: of the file; it need not exist.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.metrics: list[dict[str, Any]] = []
        # Lightning's name for the rows that were not written yet, as `metrics` is.
        self.metrics_keys: list[str] = []

    def log_metrics(self, metrics_dict: dict[str, Any], step: int | None = None) -> None:
        """Keeps one row in memory until the next `save`."""
        values = {name: value.item() if hasattr(value, "item") else value for name, value in metrics_dict.items()}
        self.metrics.append({**values, "step": len(self.metrics) if step is None else step})

    def save(self) -> None:
        """Appends the new rows; where they bring new columns the file is replaced as a whole."""
        if not self.metrics:
            return
        new = {name for row in self.metrics for name in row} - set(self.metrics_keys)
        if new or not self.path.is_file():
            rows = [*self.read(), *self.metrics]
            # The file may have columns of a process before, such as the one that trained what is measured now.
            self.metrics_keys = sorted({name for row in rows for name in row})
            self._replace(rows)
        else:
            with self.path.open("a", encoding="utf-8", newline="") as file:
                file.write(self._text(self.metrics))
        self.metrics = []

    def read(self) -> list[dict[str, Any]]:
        """Returns the rows that were written, with their values as text."""
        if not self.path.is_file():
            return []
        with self.path.open(encoding="utf-8", newline="") as file:
            return list(csv.DictReader(file))

    def keep(self, count: int) -> None:
        """Forgets all rows but the first `count`, which another process may have written."""
        rows = self.read()[:count]
        self.metrics_keys = sorted({name for row in rows for name in row})
        self.path.unlink(missing_ok=True) if not rows else self._replace(rows)

    def forget(self, names: Iterable[str]) -> None:
        """Removes the columns of metrics whose names begin with one of these and a slash, such as those of a probe."""
        before = self.read()
        prefixes = tuple(f"{name}/" for name in names)
        rows = [{name: value for name, value in row.items() if not name.startswith(prefixes)} for row in before]
        kept = [row for row in rows if any(value for name, value in row.items() if name != "step")]
        if kept != before:
            self.metrics_keys = sorted({name for row in kept for name in row})
            self._replace(kept)

    def _replace(self, rows: list[dict[str, Any]]) -> None:
        header = io.StringIO()
        csv.DictWriter(header, self.metrics_keys).writeheader()
        write_text(self.path, header.getvalue() + self._text(rows))

    def _text(self, rows: list[dict[str, Any]]) -> str:
        text = io.StringIO()
        csv.DictWriter(text, self.metrics_keys).writerows(rows)
        return text.getvalue()
