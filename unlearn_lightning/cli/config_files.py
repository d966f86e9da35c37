"""The configurations that come with the package: found by name from any folder, listed and copied by `unlearn configs`.

    find("configs/stages/tofu.yaml")        # the file of that name here, or else the shipped one
    find("stages/tofu.yaml")                # the same, in short

A file of your own goes first, so a copy that you edit takes the shipped one's place.
"""

from __future__ import annotations

import argparse
import difflib
import re
from collections.abc import Sequence
from itertools import groupby, takewhile
from pathlib import Path
from shutil import get_terminal_size
from textwrap import wrap

from unlearn_lightning.cli import subcommand

PACKAGE = Path(__file__).parents[1]
# An installed package holds the configurations inside itself; in a checkout they lie beside the package.
FOLDER = next((folder for folder in (PACKAGE / "configs", PACKAGE.parent / "configs") if folder.is_dir()), PACKAGE / "configs")


def names() -> list[str]:
    """Returns every shipped configuration by its name, such as `stages/tofu.yaml`."""
    return sorted(path.relative_to(FOLDER).as_posix() for path in FOLDER.rglob("*.yaml"))


def shipped(name: str) -> Path | None:
    """Finds the shipped configuration of that name, with or without `configs/` before it; returns none if there is none."""
    short = Path(name).as_posix().removeprefix("configs/")
    return FOLDER / short if short in names() else None


def find(name: str) -> Path:
    """The file `name`, or else the shipped configuration of that name.

    Raises:
        FileNotFoundError: there is neither; the message has the nearest name.
    """
    if Path(name).is_file():
        return Path(name)
    if found := shipped(name):
        return found
    near = difflib.get_close_matches(name.removeprefix("configs/"), names(), n=1)
    hint = f" Did you mean configs/{near[0]}?" if near else ""
    raise FileNotFoundError(
        f"There is no configuration {name}, neither as a file nor among the shipped ones.{hint} `unlearn configs` lists them."
    )


def purpose(name: str) -> str:
    """Tells what a shipped configuration is for: returns the sentence that it opens with, which may go over several lines."""
    comment = takewhile(re.compile("# (?! )").match, (FOLDER / name).read_text(encoding="utf-8").splitlines())
    text = " ".join(line.removeprefix("# ") for line in comment)
    return re.split(r"(?<=[\w)`%]\.) (?=[A-Z`])", text, maxsplit=1)[0]


def parser() -> argparse.ArgumentParser:
    """Describes the arguments of `unlearn configs`."""
    found = argparse.ArgumentParser(
        prog="unlearn configs", description="Lists the shipped configurations, prints one, or copies it to be edited.", allow_abbrev=False
    )
    found.add_argument("name", metavar="NAME", nargs="?", help="prints this one, such as stages/tofu.yaml")
    found.add_argument("--copy", metavar="FILE", type=Path, help="writes it to a new file instead")
    return found


def main(arguments: Sequence[str]) -> int:
    """Runs the command and returns its exit status."""
    return subcommand.run(parser(), arguments, _show)


def _show(options: argparse.Namespace) -> None:
    if options.copy and not options.name:
        raise ValueError("--copy needs the NAME of a configuration.")
    if not options.name:
        print(listing(get_terminal_size().columns), end="")
        return
    text = find(options.name).read_text(encoding="utf-8")
    if options.copy is None:
        print(text, end="")
        return
    options.copy.parent.mkdir(parents=True, exist_ok=True)
    try:
        with options.copy.open("x", encoding="utf-8") as file:
            file.write(text)
    except FileExistsError:
        raise FileExistsError(f"{options.copy} exists already and is left as it is. Give another name.") from None
    print(f"{options.copy}: a copy of {options.name}, yours to edit.")


def listing(width: int = 80) -> str:
    """Lists all names with their purposes, by folder; those of no folder come first.   Args: width: of a line."""
    lines: list[str] = []
    for folder, group in groupby(sorted(names(), key=lambda name: ("/" in name, name)), lambda name: name.rpartition("/")[0]):
        lines += [f"configs/{folder}".rstrip("/")]
        for name in group:
            lines += wrap(
                purpose(name), width, initial_indent=f"  {name.rpartition('/')[2]:<28} ", subsequent_indent=" " * 31, break_on_hyphens=False
            )
    return "\n".join(lines) + "\n"
