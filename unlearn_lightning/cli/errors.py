"""Every error as one line: what came, what was expected, what to do. jsonargparse's pages are cut down to that.

    unlearn: model.beta: expected a number, got 'abc'.
    unlearn: NPO needs beta above 0, got -1.0.

`told` is the one place that decides how a command ends when something was raised: an error of a known kind is one line, and any other
is a fault of this package or of a library, whose traceback goes into a file that the line names.
"""

from __future__ import annotations

import argparse
import os
import re
import site
import sys
import sysconfig
import tempfile
import time
import traceback
from pathlib import Path

import yaml

from unlearn_lightning.cli.secrets import looks_secret
from unlearn_lightning.loggers.wandb_end import end_in_wandb
from unlearn_lightning.records.texts import plain_text

# Bad input, missing files, broken networks, numbers that ran away, packages that are not installed. Hugging Face's errors are among them.
KNOWN = (ValueError, OSError, ArithmeticError, ImportError, argparse.ArgumentError, yaml.YAMLError)
# Kinds of packages that a command without torch has no need to import, by name.
KNOWN_NAMES = {
    "UnpicklingError",
    "MisconfigurationException",
    "SafetensorError",
    "OutOfMemoryError",
    "HfHubHTTPError",
    "TemplateError",
    "HTTPError",
}
LONGEST = 700
OWN = (Path(__file__).parents[1], Path(__file__).parents[2] / "callbacks")
INSTALLED = tuple(Path(place) for place in {*sysconfig.get_paths().values(), *site.getsitepackages()} if len(Path(place).parts) > 3)
TYPES = {
    "<class 'int'>": "a whole number", "<class 'float'>": "a number", "<class 'bool'>": "true or false", "<class 'str'>": "text",
    "<class 'NoneType'>": "null", "<class 'list'>": "a list", "<class 'dict'>": "a mapping", "<class 'tuple'>": "a list",
}  # fmt: skip
LITERAL = re.compile(r"typing\.Literal\[(.*)\]$")
UNION = "Does not validate against any of the Union subtypes"
KEY = re.compile(r'Parser key "([^"]+)"')
EXPECTED = re.compile(r"Expected an? (?!path but|dot import)(.+?)(?:\. Got value: .*)?$")
GOT = re.compile(r"(?:Given value|Got value): (.*?)(?:\. Got value: .*)?$")
NESTED = re.compile(r"NestedArg\(key=.*?, val=(.*)\)$")
# What jsonargparse writes around the one thing that is wrong.
AROUND = re.compile(
    rf'^(?:- )?(?:{UNION}|Subtypes: .*|Errors:|Given value.*|Parser key "[^"]+"(?: element \d+)?:|'
    r"Problem with given class_path .*|Expected a path but .*|Expected a dot import path string: .*|Expected an? <class 'NoneType'>)?$"
)
CALLABLE = re.compile(r"Type \S.* expects a function or a callable class: ")
TAIL = re.compile(r"[.\s]*Got value: (?:Namespace|NestedArg)\(.*", re.S)


def told(error: BaseException, prog: str, status: int = 2) -> int:
    """Says what went wrong in one line on stderr; with UNLEARN_TRACEBACK=1 the error is raised instead.

    Args:
        error: what was raised.
        prog: the command, as the line begins.
        status: the exit status of an error of a known kind.

    Returns:
        The exit status: that, or 1 for a fault.
    """
    end_in_wandb(failed=True)
    if os.environ.get("UNLEARN_TRACEBACK"):
        raise error
    if is_known(error) or foreign_place(error):
        print(f"{prog}: {line(error)} (UNLEARN_TRACEBACK=1 shows where.)", file=sys.stderr)
        return status
    file = _traceback_file(error)
    print(
        f"{prog}: {type(error).__name__}: {line(error)} This was not foreseen: please report it with {file}, which says where it arose.",
        file=sys.stderr,
    )
    return 1


def is_known(error: BaseException) -> bool:
    """Says whether an error is of a kind that its own words explain."""
    return isinstance(error, KNOWN) or bool(KNOWN_NAMES & {kind.__name__ for kind in type(error).__mro__})


def line(error: BaseException) -> str:
    """Words an error in one line of at most a few hundred characters."""
    words = plain_text(" ".join(short(str(error) or type(error).__name__).split()))
    words = f"{words}{raised_in(error)}"
    return words if len(words) <= LONGEST else f"{words[: LONGEST * 2 // 3]} [...] {words[-LONGEST // 3 :]}"


def innermost(error: BaseException) -> BaseException:
    """The error that was raised first, of those that led to this one."""
    while (before := error.__cause__ or error.__context__) is not None:
        error = before
    return error


def raised_in(error: BaseException | None) -> str:
    """What a line says behind its words of an error that arose in a user's own code: its kind and place; empty for any other."""
    place = "" if error is None else foreign_place(error)
    return f" ({type(innermost(error)).__name__}, raised in {plain_text(place)})" if error is not None and place else ""


def foreign_place(error: BaseException) -> str:
    """File and line of code that belongs neither to this package nor to an installed one, where an error arose in it; else empty.

    Such code is a user's own probe, stage, objective or section. What it calls here words its errors itself.
    """
    for frame in reversed(traceback.extract_tb(innermost(error).__traceback__)):
        if any(Path(frame.filename).is_relative_to(place) for place in OWN):
            return ""
        if Path(frame.filename).is_file() and not any(Path(frame.filename).is_relative_to(place) for place in INSTALLED):
            return f"{frame.filename}, line {frame.lineno}"
    return ""


def short(message: str) -> str:
    """Cuts a message of jsonargparse down to what is wrong; returns any other message as it is."""
    if not (KEY.search(message) or UNION in message or CALLABLE.search(message)):
        return _ended(TAIL.sub("", message)) if TAIL.search(message) else message
    lines = [one for one in CALLABLE.sub("", message).splitlines() if one.strip()]
    key, rest = _deepest(lines)
    expected = [found[1] for one in rest if (found := EXPECTED.search(one.strip()))]
    said = [TAIL.sub("", one).strip().removeprefix("- ") for one in rest if not AROUND.match(one.strip()) and not EXPECTED.search(one)]
    where = f"{key}: " if key else ""
    if said:
        return _ended(said[0] if not key or key.rpartition(".")[2] in said[0] else f"{where}{said[0]}")
    if not expected:
        return message
    got = next((found[1] for one in rest if (found := GOT.search(one.strip()))), None)
    return f"{where}expected {_wanted(expected)}{'' if got is None else f', got {_value(got)}'}."


def _deepest(lines: list[str]) -> tuple[str, list[str]]:
    """Returns the dotted name of the setting that is wrong, and the lines on it alone."""
    keys: list[str] = []
    depth, start = -1, 0
    for number, text in enumerate(lines):
        found = KEY.search(text)
        if found and found.start() > depth:
            depth, start = found.start(), number
            keys.append(found[1])
    rest = [KEY.sub("", lines[start], count=1).lstrip(":- ").strip() if keys else lines[start], *lines[start + 1 :]]
    inside = [rest[0]]
    for text in rest[1:]:
        # A line that is less deep concerns the settings around the wrong one.
        if keys and len(text) - len(text.lstrip()) <= depth - 1:
            break
        inside.append(text)
    return ".".join(keys), inside


def _wanted(expected: list[str]) -> str:
    """Puts the types of a union into words; the choices of several literals are one list."""
    literals = [found[1] for one in expected if (found := LITERAL.match(one))]
    choices = list(dict.fromkeys(choice.strip(" '") for one in literals for choice in one.split(",")))
    words = [f"one of {', '.join(choices)}"] * bool(choices)
    words += [TYPES.get(one, one.replace("<class '", "").replace("'>", "")) for one in expected if not LITERAL.match(one)]
    return " or ".join(word for word in dict.fromkeys(words) if not (word == "a whole number" and "a number" in words))


def _ended(text: str) -> str:
    return text if text.endswith((".", "?", "!", ")")) else f"{text}."


def _value(got: str) -> str:
    found = NESTED.search(got)
    value = found[1] if found else "null" if got == "None" else repr(got)
    if looks_secret(value):
        return "a value that holds a key or a password, which is not shown"
    return value if len(value) <= 80 else f"{value[:80]}..."


def _traceback_file(error: BaseException) -> Path:
    text = "".join(traceback.format_exception(error))
    name = f"unlearn-traceback-{time.strftime('%Y%m%d-%H%M%S')}-{os.getpid()}.txt"
    for folder in (Path.cwd(), Path(tempfile.gettempdir())):
        try:
            (folder / name).write_text(text, encoding="utf-8")
        except OSError:
            continue
        return folder / name
    raise error
