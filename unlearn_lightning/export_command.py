"""`unlearn export RUN` as typed: its arguments, before torch is loaded."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path


def parser() -> argparse.ArgumentParser:
    """The arguments of `unlearn export`."""
    found = argparse.ArgumentParser(
        prog="unlearn export", description="Writes a run's model for plain transformers and PEFT.", allow_abbrev=False
    )
    found.add_argument("run", metavar="RUN", type=Path, help="a finished run folder with an adapter")
    found.add_argument("--out", metavar="DIR", type=Path, help="where it goes (default: RUN/export)")
    found.add_argument("--merge", action="store_true", help="whole weights instead of an adapter")
    return found


def main(arguments: Sequence[str]) -> int:
    """Runs the command and returns its exit status."""
    try:
        options = parser().parse_args(list(arguments) or ["--help"])
    except SystemExit as end:
        return int(end.code or 0)

    from unlearn_lightning.export import export

    out = options.out or options.run / "export"
    try:
        print(f"{out}: {export(options.run, out, options.merge)}")
    except (ValueError, OSError) as error:
        print(f"unlearn export: {error}", file=sys.stderr)
        return 2
    return 0
