"""Quotes data in messages, and never more than a few hundred characters of it.

    f"field 'prompt' is {quoted(value)}"          # 'Who wrote t'... (869,130 characters)
    f"The values are {listed(values)}."           # 'ascii', 'morse' and 14 more

Every message that shows what a file, a record or another library said goes through here, because a record can hold a whole book.
"""

from __future__ import annotations

import json
import reprlib
from collections.abc import Iterable
from itertools import islice

LONGEST = 80
_REPR = reprlib.Repr()
_REPR.maxlevel, _REPR.maxstring, _REPR.maxother, _REPR.maxlist, _REPR.maxdict = 3, 40, 40, 4, 4


def shortened(text: str, longest: int = LONGEST) -> str:
    """The text, or its beginning and how many characters the whole has."""
    return text if len(text) <= longest else f"{text[:longest]}... ({len(text):,} characters)"


def quoted(value: object, longest: int = LONGEST) -> str:
    """A value as Python writes it, cut where it is long; JSON's null is called null."""
    if value is None:
        return "null"
    if isinstance(value, str):
        return repr(value) if len(value) <= longest else f"{value[:longest]!r}... ({len(value):,} characters)"
    return shortened(_REPR.repr(value), longest)


def listed(values: Iterable[object], most: int = 8) -> str:
    """The first few values, quoted, and how many more there are."""
    return first_few((quoted(value, 40) for value in values), most)


def first_few(texts: Iterable[str], most: int = 8) -> str:
    """The first few texts as they are, and how many more there are."""
    waiting = iter(texts)
    shown = ", ".join(islice(waiting, most))
    more = sum(1 for _ in waiting)
    return f"{shown} and {more:,} more" if more else shown or "none"


def first_line(error: BaseException, longest: int = 200) -> str:
    """What another library's error says first, behind the error's type."""
    said = str(error).strip().partition("\n")[0]
    return f"{type(error).__name__}: {shortened(said, longest)}" if said else type(error).__name__


def check_characters(where: str, item: object) -> None:
    """Refuses a record with half of a surrogate pair in it, which no tokenizer and no file can hold.

    Raises:
        ValueError: names the place and what stands before the half.
    """
    try:
        json.dumps(item, ensure_ascii=False).encode()
    except UnicodeEncodeError as error:
        raise ValueError(
            f"{where}: {quoted(error.object[error.start])} is half of a surrogate pair and no character, near "
            f"{quoted(error.object[max(0, error.start - 20) : error.start])}. Write the whole character, or take it out."
        ) from None
