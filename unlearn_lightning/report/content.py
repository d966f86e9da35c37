"""What is logged of a report, whichever place it is logged to: tables, figures, files and the verdict.

content.tables["closing"]       # -> (["p", "label", "path", "objective", ...], [[1, "1st", "safety tofu gsm8k", "npo", ...], ...])
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

Cells = tuple[list[str], list[list[Any]]]
"""Header and rows of a table."""


@dataclass(frozen=True)
class Content:
    """What is logged of a report.

    Attributes:
        study: its name.
        folder: the study folder.
        config: the study's whole configuration.
        summary: the verdict (`headline`, `agrees`) and the numbers that sweeps compare.
        tables: name -> header and rows; the cells of `closing` are numbers, or null where nothing was measured.
        figures: name -> PNG file.
        files: everything that was written, the page among it.
    """

    study: str
    folder: Path
    config: dict[str, Any]
    summary: dict[str, Any]
    tables: dict[str, Cells]
    figures: dict[str, Path]
    files: list[Path]
