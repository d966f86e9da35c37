"""What is logged of a report, whichever place it is logged to: tables, figures, files and the verdict.

content.tables["closing"].header()      # ["p", "label", "path", "objective", "seeds", "forget_score", "forget_score_ci95", ...]
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from unlearn_lightning.report.blocks import Table


@dataclass(frozen=True)
class Content:
    """What is logged of a report.

    Attributes:
        study: its name.
        folder: the study folder.
        config: the study's whole configuration.
        summary: the verdict (`headline`, `agrees`) and the numbers that sweeps compare.
        tables: name -> table; its plain cells are numbers in full, or null where nothing was measured.
        figures: name -> PNG file.
        files: everything that was written, the page among it.
    """

    study: str
    folder: Path
    config: dict[str, Any]
    summary: dict[str, Any]
    tables: dict[str, Table]
    figures: dict[str, Path]
    files: list[Path]
