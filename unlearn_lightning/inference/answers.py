r"""Reading the final answer of a grade-school math solution, and comparing numbers as a teacher would.

    final_answer("6 + 6 = 12.\n#### 12")         # "12"
    final_answer(r"#### \boxed{−1 000}")         # "-1 000"
    same_number("1,000", "$1000.0")              # True
    same_number("3/4", "3")                      # False

The line `#### <number>` is GSM8K's own convention (Cobbe et al. 2021, arXiv:2110.14168); as in its code the first such line counts and
commas are dropped. A dash of any kind is a minus sign, digits may be grouped by spaces of any kind, a fraction is one number, and what
only decorates a number (currency, percent, emphasis, `\boxed{}`, units behind it) does not count.
"""

from __future__ import annotations

import re
import unicodedata
from decimal import Decimal
from fractions import Fraction

MINUS = "\N{MINUS SIGN}"
_CATEGORIES = [(chr(code), unicodedata.category(chr(code))) for code in range(0x10000)]
# Every other dash of Unicode is written as a hyphen. The true minus sign stays, as it is never punctuation.
_HYPHENS = dict.fromkeys([ord(sign) for sign, kind in _CATEGORIES if kind == "Pd"], "-")
_SLASHES = dict.fromkeys(map(ord, "\N{FRACTION SLASH}\N{DIVISION SLASH}\N{FULLWIDTH SOLIDUS}"), "/")
_CURRENCY = rf"(?:[A-Z]{{0,2}}[{''.join(sign for sign, kind in _CATEGORIES if kind == 'Sc')}][ \u00a0]?)?"

# Spaces and apostrophes that group digits by three: plain, no-break, figure, thin, narrow no-break.
_GAP = "[ \u00a0\u2007\u2009\u202f'\u2019]"
_DIGITS = rf"(?:\d{{1,3}}(?:{_GAP}\d{{3}})+(?!\d)(?:[.,]\d+)?|\d(?:[\d,.]*\d)?|\.\d+)(?:[eE][-+]?\d{{1,3}}(?!\d))?"
_SIGN = rf"[-+{MINUS}]"
NUMBER = re.compile(
    rf"(?P<sign>{_SIGN})?(?P<gap>(?<={_SIGN})[ \u00a0]?)?{_CURRENCY}(?P<inner>{_SIGN}?)"
    rf"(?:(?P<whole>\d+)[ \u00a0]+(?=[1-9]\d?/\d\d?(?!\d)))?(?P<top>{_DIGITS})(?:[ \u00a0]?/[ \u00a0]?(?P<bottom>{_DIGITS}))?"
)
_MARK = re.compile(rf"####\s*(?={_SIGN}?[ \u00a0]?{_CURRENCY}{_SIGN}?\.?\d)")
# A number before one of these is a part of something longer that is no number: 10 - 4, 2:30, 10^3, 6²
_GOES_ON = re.compile(rf"\s*(?:{_SIGN}|[*×·÷^/])\s*[$(]?\d|:\d|[\^⁰¹²³⁴-⁹]")
# Before a sign of its own, these leave no doubt that it is one and no dash between two thoughts, and no subtraction.
_BEFORE_A_SIGN = re.compile(r"(?:^|####|[=:({<>]|\b(?:is|equals|of|to|at|minus))\s*$")


def final_answer(text: str) -> str | None:
    """The number behind the first `####` that a number follows, without decoration; None when there is none ("strict match").

    None as well where it is only the beginning of something longer, such as 10 - 4 or 2:30.
    """
    text = _plain(text)
    mark = _MARK.search(text)
    found = NUMBER.match(text, mark.end()) if mark else None
    return None if found is None or _GOES_ON.match(text, found.end()) else found[0].strip()


def last_number(text: str) -> str | None:
    """The last number anywhere in the text; None when there is none ("flexible match").

    A dash is its sign unless it joins it to what is before it: 10-4 and COVID-19 end in 4 and 19.
    """
    text = _plain(text)
    numbers = list(NUMBER.finditer(text))
    if not numbers:
        return None
    found = numbers[-1]
    unsigned = found[0].removeprefix(found["sign"] or "").strip()
    return found[0].strip() if not found["sign"] or _is_sign(text[: found.start()], found) else unsigned


def to_number(text: str) -> Fraction | None:
    """`$1,000.0` -> 1000, `-3/4` -> -3/4, `1 1/2` -> 3/2; None for what is no number."""
    found = NUMBER.fullmatch(_plain(text).strip().rstrip(".% "))
    if found is None or (found["sign"] and found["inner"]):
        return None
    whole, top, bottom = (_value(found[name] or usual) for name, usual in (("whole", "0"), ("top", "0"), ("bottom", "1")))
    if whole is None or top is None or not bottom:
        return None
    value: Fraction = whole + top / bottom
    return -value if (found["sign"] or found["inner"]) in ("-", MINUS) else value


def same_number(one: str | None, other: str | None) -> bool:
    """Whether both are numbers of the same value: 1,000 = 1000 = 1000.0 = $1,000 = 2000/2."""
    if one is None or other is None:
        return False
    a, b = to_number(one), to_number(other)
    return a is not None and a == b


def _plain(text: str) -> str:
    r"""The text without Markdown's and LaTeX's marks: `**42**`, `\boxed{42}` and `$42$` are 42, `\frac{3}{4}` and `¾` are 3/4."""
    text = re.sub(r"(\d?)([¼-¾⅐-⅞↉])", lambda m: f"{m[1]}{' ' if m[1] else ''}{unicodedata.normalize('NFKC', m[2])}", text)
    text = text.translate(_HYPHENS | _SLASHES).replace(r"\$", "$").replace("{,}", ",").replace(r"\,", "\u2009").replace(r"\!", "")
    text = re.sub(r"(\d?)\\[dt]?frac\s?\{([^{}]*)\}\s?\{([^{}]*)\}", lambda m: f"{m[1]}{' ' if m[1] else ''}{m[2]}/{m[3]}", text)
    text = re.sub(r"\\[a-zA-Z]{1,12}\s?\{|[{}]|\\[()\[\]]", "", text)
    # Emphasis touches what it encloses; a sign of multiplication stands between numbers or alone.
    return re.sub(r"(?<![\w)])[*_`]{1,3}(?=[^\s*_`])|(?<=[^\s*_`])[*_`]{1,3}(?![\w($])", "", text)


def _is_sign(before: str, found: re.Match[str]) -> bool:
    if not found["gap"]:
        return not re.search(r"[\w)%$]$", before)
    if found["sign"] == MINUS:
        return not re.search(r"[\d)%$]\s*$", before)
    return bool(_BEFORE_A_SIGN.search(before))


def _value(digits: str) -> Fraction | None:
    """One number without a sign. Points that group by three are dropped where there is no doubt: 1.000.000 and 1.000,50."""
    spaced = re.sub(_GAP, "", digits)
    if re.fullmatch(r"\d{1,3}(?:\.\d{3}){2,}|\d{1,3}(?:\.\d{3})+,\d+", spaced) or (spaced != digits and re.fullmatch(r"\d+,\d+", spaced)):
        spaced = spaced.replace(".", "").replace(",", ".")
    plain = spaced.replace(",", "")
    return Fraction(Decimal(plain)) if re.fullmatch(r"\d*\.?\d+(?:[eE][-+]?\d+)?", plain) else None
