"""`metrics.csv` of a run folder: every logged value by step, each step once, also where a run was killed and went on.

logger = RunMetrics(run_folder)          # a Lightning CSVLogger; resume.py takes its file back to a checkpoint
"""

from __future__ import annotations

import csv
import itertools
import os
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
from lightning.pytorch.loggers import CSVLogger
from lightning.pytorch.loggers.logger import rank_zero_experiment
from lightning.pytorch.utilities.rank_zero import rank_zero_info

from unlearn_lightning.records import written_whole
from unlearn_lightning.records.disk import writing

REMEDY = "Put it back, or delete it to go on without the numbers of before the checkpoint."


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
    """A CSV file with a column for each metric, in alphabetical order. It is never held in memory: a long run's may have many rows.

    Args:
        path: of the file; it need not exist.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.metrics: list[dict[str, Any]] = []
        # Lightning's name for the rows that were not written yet, as `metrics` is.
        self.metrics_keys: list[str] = []
        self._written: int | None = None

    def log_metrics(self, metrics_dict: dict[str, Any], step: int | None = None) -> None:
        """Keeps one row in memory until the next `save`."""
        values = {name: value.item() if hasattr(value, "item") else value for name, value in metrics_dict.items()}
        self.metrics.append({**values, "step": len(self.metrics) if step is None else step})

    def save(self) -> None:
        """Appends the new rows; where they bring new columns the file is replaced as a whole."""
        if not self.metrics:
            return
        self._written = self.written + len(self.metrics)
        new = {name for row in self.metrics for name in row} - set(self.metrics_keys)
        if new or not self.path.is_file():
            # The file may have columns of a process before, such as the one that trained what is measured now.
            self.metrics_keys = sorted({*self._header(), *self.metrics_keys, *new})
            self._replace(itertools.chain(self.rows(), self.metrics))
        else:
            with writing(self.path), self.path.open("a", encoding="utf-8", newline="") as file:
                csv.DictWriter(file, self.metrics_keys).writerows(self.metrics)
        self.metrics = []

    @property
    def written(self) -> int:
        """The number of rows in the file, counted once."""
        if self._written is None:
            self._written = sum(1 for _ in self._ends()) if self.path.is_file() else 0
        return self._written

    def rows(self) -> Iterator[dict[str, Any]]:
        """The rows that were written, one after the other, with their values as text.

        Raises:
            ValueError: the file is no CSV.
        """
        return self._read(csv.DictReader)

    def _steps(self) -> Iterator[str]:
        """The step of each row, empty where it has none; in a third of the time that `rows` takes."""
        lines = self._read(csv.reader)
        header: list[str] = next(lines, [])
        place = header.index("step") if "step" in header else len(header)
        return (line[place] if place < len(line) else "" for line in lines if line)

    def _read(self, reader: Callable[[Iterable[str]], Iterator[Any]]) -> Iterator[Any]:
        if self.path.is_file():
            with self.path.open(encoding="utf-8", newline="") as file:
                try:
                    yield from reader(file)
                except (csv.Error, UnicodeDecodeError) as error:
                    raise ValueError(f"{self.path} is no CSV that can be read ({error}). {REMEDY}") from None

    def read(self) -> list[dict[str, Any]]:
        """Returns the rows that were written, with their values as text."""
        return list(self.rows())

    def keep(self, count: int) -> None:
        """Forgets all rows but the first `count`, which another process may have written.

        Raises:
            ValueError: there are fewer, or the file was overwritten.
        """
        self._written, self.metrics_keys = 0, []
        if not self.path.is_file():
            if count:
                rank_zero_info(f"{self.path} is gone: the run goes on without the {count} rows of before its checkpoint.")
            return
        if not all(map(str.isdecimal, itertools.islice(self._steps(), count))):
            raise ValueError(f"{self.path} has rows without a step: it was overwritten. {REMEDY}")
        end = 0
        for place in itertools.islice(self._ends(), count):
            self._written, end = self._written + 1, place
        if self._written < count:
            raise ValueError(f"{self.path} has {self._written} rows where the checkpoint says {count}: it was cut or overwritten. {REMEDY}")
        if not count:
            self.path.unlink()
            return
        self.metrics_keys = self._header()
        os.truncate(self.path, end)

    def forget(self, names: Iterable[str]) -> None:
        """Removes the columns of metrics whose names begin with one of these and a slash, such as those of a probe."""
        before, prefixes = self._header(), tuple(f"{name}/" for name in names)
        kept = [name for name in before if not name.startswith(prefixes)]
        if kept != before:
            self._written, self.metrics_keys = None, kept
            rows = ({name: row[name] for name in kept} for row in self.rows())
            self._replace(row for row in rows if any(value for name, value in row.items() if name != "step"))

    def _header(self) -> list[str]:
        """The names of the file's columns; none where there is no file."""
        if not self.path.is_file():
            return []
        with self.path.open(encoding="utf-8", newline="") as file:
            return next(csv.reader(file), [])

    def _ends(self) -> Iterator[int]:
        """The place in the file where each row ends, in bytes; a text in quotes may hold a line's end."""
        place, quotes, is_header = 0, 0, True
        with self.path.open("rb") as file:
            for line in file:
                place, quotes = place + len(line), quotes + line.count(b'"')
                if quotes % 2 == 0 and line.strip():
                    if not is_header:
                        yield place
                    is_header = False

    def _replace(self, rows: Iterable[dict[str, Any]]) -> None:
        with written_whole(self.path, newline="") as file:
            writer = csv.DictWriter(file, self.metrics_keys)
            writer.writeheader()
            writer.writerows(rows)
