r"""Reading the final answer of a grade-school math solution, and comparing numbers as a teacher would.

    final_answer("6 + 6 = 12.\n#### 12")     # "12"
    same_number("1,000", "$1000.0")          # True

The last line `#### <number>` is GSM8K's own convention (Cobbe et al. 2021, arXiv:2110.14168).
"""

from __future__ import annotations

import re
from decimal import Decimal, InvalidOperation

NUMBER = r"[-+]?\$?[-+]?\d[\d,]*(?:\.\d+)?|[-+]?\$?\.\d+"
MARKED = re.compile(rf"####\s*({NUMBER})")


def final_answer(text: str) -> str | None:
    """The number behind the last `####`, as written; None when there is none ("strict match")."""
    found = MARKED.findall(text)
    return found[-1] if found else None


def last_number(text: str) -> str | None:
    """The last number anywhere in the text; None when there is none ("flexible match")."""
    found = re.findall(NUMBER, text)
    return found[-1] if found else None


def to_number(text: str) -> Decimal | None:
    """`$1,000.0` -> 1000; None for what is no number."""
    try:
        value = Decimal(re.sub(r"[,$\s]", "", text).rstrip("."))
    except InvalidOperation:
        return None
    return value if value.is_finite() else None


def same_number(one: str | None, other: str | None) -> bool:
    """Whether both are numbers of the same value: 1,000 = 1000 = 1000.0 = $1,000."""
    if one is None or other is None:
        return False
    a, b = to_number(one), to_number(other)
    return a is not None and a == b
