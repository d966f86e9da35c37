"""A verb's arguments parsed, its work done, and bad input told in one line.

return run(parser(), arguments or ["--help"], lambda options: write(options.name, options.folder))
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence

from unlearn_lightning.cli.errors import told


def run(parser: argparse.ArgumentParser, arguments: Sequence[str], work: Callable[[argparse.Namespace], None]) -> int:
    """Runs the verb and returns its exit status: 0, or 2 after a line on what is wrong with the input."""
    try:
        work(parser.parse_args(list(arguments)))
    except SystemExit as end:  # argparse has said what is wrong, or shown the help
        return int(end.code or 0)
    except Exception as error:
        return told(error, parser.prog)
    return 0


def count(text: str) -> int:
    """The argument of a flag that counts something.

    Raises:
        ArgumentTypeError: it is below 1.
    """
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"must be at least 1, got {value}")
    return value
