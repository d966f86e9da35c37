"""`unlearn new callback|objective|stage NAME`: a file that works, to be made your own, and its test, which passes.

    unlearn new callback ResponseLength       # response_length.py and test_response_length.py

What is written are the files in templates/ under another name.
"""

from __future__ import annotations

import argparse
import keyword
import re
import shlex
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

from unlearn_lightning.cli import subcommand

TEMPLATES = Path(__file__).parent / "templates"
USE = {
    "callback": "-c configs/stages/tofu.yaml -c configs/backbones/tiny-llama.yaml --trainer.callbacks+ {path}",
    "objective": "-c configs/objectives/npo.yaml -c configs/backbones/tiny-llama.yaml --model {path}",
    "stage": "-c configs/stages/tofu.yaml -c configs/backbones/tiny-llama.yaml --data {path}",
}


def write(kind: str, name: str, folder: Path) -> list[Path]:
    """Writes the class and its test into a folder.

    Args:
        kind: callback, objective or stage.
        name: of the class, such as ResponseLength; the files are named after it, response_length.py.
        folder: where; made if need be.

    Returns:
        The file and its test.

    Raises:
        ValueError: the name is no class name, or its file would hide a module that is installed.
        FileExistsError: one of the files is there; nothing was written.
    """
    if not re.fullmatch(r"[A-Z][A-Za-z0-9]*", name) or keyword.iskeyword(name):
        raise ValueError(f"{name!r} is no class name. Give one such as ResponseLength: a capital letter, then letters and digits.")
    module = re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "_", name).lower()
    paths = [folder / f"{module}.py", folder / f"test_{module}.py"]
    for path in paths:
        if path.exists():
            raise FileExistsError(f"{path} exists already and is left as it is. Give another name, or another --folder.")
    if keyword.iskeyword(module) or find_spec(module):
        raise ValueError(f"{module}.py would stand in the way of Python's or an installed package's {module!r}. Give another name.")
    folder.mkdir(parents=True, exist_ok=True)
    for path, template in zip(paths, (f"new_{kind}.py", f"test_new_{kind}.py"), strict=True):
        text = (TEMPLATES / template).read_text(encoding="utf-8")
        text = text.replace(f"New{kind.capitalize()}", name).replace(f"new_{kind}", module)
        with path.open("x", encoding="utf-8") as file:
            file.write(text)
    return paths


def parser() -> argparse.ArgumentParser:
    """Describes the arguments of `unlearn new`."""
    found = argparse.ArgumentParser(
        prog="unlearn new", description="Writes a metric, an objective or a stage that works, with its test, to be made your own.",
        allow_abbrev=False,
    )  # fmt: skip
    found.add_argument("kind", choices=list(USE), help="callback is a metric")
    found.add_argument("name", metavar="NAME", help="the class, such as ResponseLength")
    found.add_argument("--folder", metavar="DIR", type=Path, default=Path(), help="where the two files go (default: here)")
    return found


def main(arguments: Sequence[str]) -> int:
    """Runs the command and returns its exit status."""
    return subcommand.run(parser(), arguments or ["--help"], _write)


def _write(options: argparse.Namespace) -> None:
    file, test = write(options.kind, options.name, options.folder)
    use = USE[options.kind].format(path=f"{file.stem}.{options.name}")
    # A class path is found from the folder that one works in; another one has to be named.
    found = "" if options.folder.resolve() == Path.cwd() else f"PYTHONPATH={shlex.quote(str(options.folder))} "
    needs = "" if find_spec("pytest") else "      (after `pip install pytest`)"
    run_test = f"python -m pytest {shlex.quote(str(test))}{needs}"
    print(f"{file} and {test}: they work as they are, and are yours to change.\n  {run_test}\n  {found}unlearn fit {use}")
