"""`unlearn export RUN` as typed: its arguments, before torch is loaded."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from unlearn_lightning.cli import subcommand


def parser() -> argparse.ArgumentParser:
    """Describes the arguments of `unlearn export`."""
    found = argparse.ArgumentParser(
        prog="unlearn export", description="Writes a run's model for plain transformers and PEFT.", allow_abbrev=False
    )
    found.add_argument("run", metavar="RUN", type=Path, help="a finished run folder with an adapter")
    found.add_argument("--out", metavar="DIR", type=Path, help="where it goes (default: RUN/export)")
    found.add_argument("--merge", action="store_true", help="whole weights instead of an adapter")
    found.add_argument(
        "--dtype", choices=["float32", "bfloat16", "float16"], help="of the merged weights (default: the run's; float32 rounds nothing)"
    )
    found.add_argument(
        "--accept-difference", action="store_true", help="write it although it differs from the trained model by more than the bound"
    )
    return found


def main(arguments: Sequence[str]) -> int:
    """Runs the command and returns its exit status."""
    return subcommand.run(parser(), arguments or ["--help"], _export)


def _export(options: argparse.Namespace) -> None:
    from unlearn_lightning.runs.export import export

    out = options.out or options.run / "export"
    print(f"{out}: {export(options.run, out, options.merge, options.dtype, options.accept_difference)}")
