"""A chat template that prints today's date, made to print a date that is given.

with_fixed_date("{{ strftime_now('%d %b') }}", datetime(2024, 7, 26))       # renders as "26 Jul" on every day
"""

from __future__ import annotations

from datetime import datetime


def with_fixed_date(template: str, date: datetime) -> str:
    """The template with `strftime_now`, where transformers gives the clock's time, replaced: a function cannot be handed over."""
    if "strftime_now" not in template:
        return template
    codes = [f"%{flag}{letter}" for flag in ("-", "") for letter in "aAbBcdfGHIjmMpSuUVwWxXyYzZ"]
    pairs = [("%%", "\0"), *((code, date.strftime(code)) for code in codes), ("\0", "%")]
    replaced = "".join(f" | replace({code!r}, {text!r})" for code, text in pairs)
    # Jinja drops the line break after a block, so the template itself starts on a line of its own, as it did.
    return f"{{% macro strftime_now(format) %}}{{{{ format{replaced} }}}}{{% endmacro %}}\n{template}"
