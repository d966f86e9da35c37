"""The trainer verbs' `--help`, kept in the environment once it was made: making it means importing torch, which takes seconds.

show("fit")         # from a file, unless the package or a library has changed since; with plug-ins, whose classes it names, always anew
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import os
import sys
from importlib.metadata import entry_points, version
from pathlib import Path
from unittest.mock import patch

PLUGINS = "unlearn_lightning.plugins"
WIDTH = "100"


def show(verb: str) -> None:
    """Prints a verb's help."""
    file, wanted = Path(sys.prefix) / "share" / "unlearn_lightning" / f"help-{verb}.txt", stamp()
    with contextlib.suppress(OSError):
        head, _, text = file.read_text(encoding="utf-8").partition("\n")
        if head == wanted and not entry_points(group=PLUGINS):
            print(text, end="")
            return
    text = made(verb)
    print(text, end="")
    # Where the environment cannot be written, the next call takes its time again.
    with contextlib.suppress(OSError):
        file.parent.mkdir(parents=True, exist_ok=True)
        part = file.with_suffix(f".{os.getpid()}")
        part.write_text(f"{wanted}\n{text}", encoding="utf-8")
        part.replace(file)


def stamp() -> str:
    """Names the state of everything that decides how the help reads: this package's files, and two libraries."""
    here = Path(__file__).parents[1]
    files = sorted([*here.rglob("*.py"), *(here.parent / "callbacks").glob("*.py")])
    state = [(str(file), file.stat().st_mtime_ns) for file in files], version("lightning"), version("jsonargparse"), sys.version
    return hashlib.sha256(repr(state).encode()).hexdigest()


def made(verb: str) -> str:
    """Returns the verb's help as the parser writes it."""
    from unlearn_lightning.cli.lightning_cli import run

    text = io.StringIO()
    with contextlib.redirect_stdout(text), contextlib.suppress(SystemExit), patch.dict(os.environ, COLUMNS=WIDTH):
        run([verb, "--help"])
    return text.getvalue()
