"""`unlearn report STUDY`: the tables, figures and page of a study, from its records.

unlearn report runs/demo --against runs/other --out /tmp/report --upload
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console

from unlearn_lightning.cli.errors import told
from unlearn_lightning.cli.terminal import terminal_console

if TYPE_CHECKING:
    from unlearn_lightning.report.report import Report


def parser() -> argparse.ArgumentParser:
    """The arguments of `unlearn report`."""
    found = argparse.ArgumentParser(
        prog="unlearn report",
        description="Makes the tables, the figures and the page of a study from the records in its run folders; no model is loaded.",
        allow_abbrev=False,
    )
    found.add_argument(
        "study", metavar="STUDY", type=Path, help="what `unlearn study` wrote, such as runs/demo, or a folder of studies and runs"
    )
    found.add_argument("--out", metavar="DIR", type=Path, help="where the report goes (default: STUDY/report)")
    found.add_argument("--against", metavar="OTHER_STUDY", type=Path, help="another study to compare with, row by row")
    found.add_argument("--match_at", metavar="NATS", type=float, help="compare paths at this forget score (default: what all reach)")
    found.add_argument(
        "--upload", action="store_true", help="also log tables and figures where the study's runs are logged: W&B, TensorBoard, MLflow"
    )
    found.add_argument("--live", action="store_true", help="the study still runs: an open page loads the next version by itself")
    return found


def report(arguments: Sequence[str]) -> int:
    """Runs the command and returns its exit status: 2 when there is no readable study, 1 when the upload failed."""
    own = parser()
    try:
        options = own.parse_args(list(arguments) or ["--help"])
    except SystemExit as end:  # argparse has said what is wrong, or shown the help
        return int(end.code or 0)

    from unlearn_lightning.report.report import build

    console = terminal_console()
    try:
        made = build(options.study, options.out, options.against, options.match_at, options.live)
    except Exception as error:
        return told(error, "unlearn report")
    made.print(console)
    return _upload(made, console) if options.upload else 0


def _upload(made: "Report", console: Console) -> int:
    from unlearn_lightning.loggers.report_upload import UploadError, upload

    try:
        lines = upload(made)
    except UploadError as error:
        print(f"unlearn report: {error}", file=sys.stderr)
        return 1
    for line in lines or ["Not uploaded: the study's runs are logged to their metrics.csv alone."]:
        console.print(line, highlight=False, markup=False, soft_wrap=True)
    return 0
