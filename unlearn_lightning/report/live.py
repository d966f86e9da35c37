"""Which version of a study's page is the newest, for pages that are open while the study runs.

The page of a running study looks at `version.svg` beside it, an empty picture whose width is the version: a page that is a plain file
and asks no network can read nothing else.
"""

from __future__ import annotations

from pathlib import Path

from unlearn_lightning.records import write_text
from unlearn_lightning.report.study_data import Study

FINAL = 1
"""The version of a page that follows nothing."""


def live_version(study: Study) -> int:
    """Versions of a running study's page are told apart by how many runs are finished, for only these are in it."""
    return 2 + len(study.runs) - len(study.unfinished)


def write_version(folder: Path, version: int) -> None:
    """Tells open pages about the page that was written."""
    picture = f'<svg xmlns="http://www.w3.org/2000/svg" width="{version}" height="1"/>\n'
    write_text(folder / "version.svg", picture)
