r"""Texts of others on their way to a terminal, a file name or a spreadsheet: none of them is a command there.

plain_text("a\x1b[31mb")     # "a\x1b[31mb", seven characters: a terminal shows it and obeys nothing
csv_cell("=1+1")             # "'=1+1": a spreadsheet shows it and computes nothing
check_name("../../x", "The study's name")      # ValueError
"""

from __future__ import annotations

import re
import unicodedata

# Control, format (such as a change of the writing direction), private and surrogate characters.
_UNSEEN = ("Cc", "Cf", "Cs", "Co")
# A name is a part of file names, of metric keys and of lines on a terminal.
_NAME = re.compile(r"\w[\w.+=-]*( [\w.+=-]+)*")
FIRST = ("forget", "retain", "holdout")
"""Sets whose probes (`forget`, then `forget_answers`) are shown before the others, which follow by name."""
LONGEST_NAME = 100
_NUMBER = re.compile(r"(\d+(?:\.\d+)?(?:[eE][+-]?\d+)?)")


def plain_text(text: str) -> str:
    """A text in which what a terminal would obey is written out; line breaks and tabs stay."""
    if text.isascii() and text.isprintable():
        return text
    return "".join(_written_out(one) if unicodedata.category(one) in _UNSEEN and one not in "\n\t" else one for one in text)


def _written_out(character: str) -> str:
    # A joiner within a word or an emoji is a part of how it is written.
    return character if character in "\u200c\u200d" else character.encode("unicode_escape").decode()


def csv_cell(text: str) -> str:
    """A text as a cell of a CSV file: behind an apostrophe where a spreadsheet would take it for a formula; numbers stay numbers."""
    if not text.lstrip(" ").startswith(("=", "+", "-", "@", "\t", "\r", "\n", "＝", "＋", "－", "＠")) or _is_number(text):
        return text
    return f"'{text}"


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def check_name(name: str, what: str) -> None:
    """Refuses a name that would be more than a name in a path, on a terminal or in a spreadsheet.

    Args:
        name: what came.
        what: whose name it is, for the message.

    Raises:
        ValueError: it has other characters than letters, digits, spaces, _, ., +, = and -, or does not begin with a letter, a digit or _.
    """
    if not _NAME.fullmatch(name) or len(name) > LONGEST_NAME:
        raise ValueError(
            f"{what} may have letters, digits, spaces, _, ., +, = and -, begins with a letter, a digit or _, and has at most "
            f"{LONGEST_NAME} characters, because files and metrics are named after it; got {name[: LONGEST_NAME + 1]!r}."
        )


def natural(name: str) -> tuple[list[tuple[str, float]], str]:
    """What to sort names by, so that their numbers count as numbers: lr3e-5 before lr1e-4, seed2 before seed10."""
    words = _NUMBER.split(name)
    return [(word, float(number)) for word, number in zip(words[::2], [*words[1::2], "0"], strict=True)], name


def size_of(value: str) -> tuple[int, float, str]:
    """What to sort the values of a setting by: none first, numbers by size, then words."""
    if not value:
        return 0, 0.0, ""
    try:
        return 1, float(value), ""
    except ValueError:
        return 2, 0.0, value


def probe_place(name: str) -> tuple[int, str]:
    """What to sort the names of probes by."""
    of = name.partition("_")[0]
    return FIRST.index(of) if of in FIRST else len(FIRST), name
