"""What a place where runs are logged takes of a finished report: tables as plain values and Markdown, figures as files, the verdict."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from unlearn_lightning.records.study_data import Study


class LoggedTable(Protocol):
    """A table of the report."""

    def header(self) -> list[str]:
        """The names of its columns."""

    def plain(self) -> Sequence[Sequence[Any]]:
        """Its rows as plain values, null where nothing was measured."""

    def markdown(self) -> str:
        """The table as Markdown."""


class LoggedVerdict(Protocol):
    """The report's first sentence, and whether what the paper found is there; null where the data do not tell."""

    headline: str
    agrees: bool | None


class LoggedReport(Protocol):
    """The report: what it is of, where it was written, and what it shows by name."""

    @property
    def study(self) -> Study:
        """What the report is of."""

    @property
    def folder(self) -> Path:
        """Where it was written."""

    @property
    def files(self) -> Sequence[Path]:
        """All that was written."""

    @property
    def verdict(self) -> LoggedVerdict:
        """What it says first."""

    @property
    def tables(self) -> Mapping[str, LoggedTable]:
        """Its tables by name."""

    @property
    def figures(self) -> Mapping[str, Path]:
        """PNG files by the figures' keys."""

    @property
    def config(self) -> dict[str, Any]:
        """The study's configuration."""

    @property
    def compared(self) -> dict[str, float]:
        """Single numbers by which a sweep compares its trials."""
