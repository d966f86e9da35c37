"""Leaves out records by the values of their fields, which may be of any JSON type.

    leave_out(rows, {"prompt_style": ["ascii", "morse"], "label": [0], "flagged": [True], "parent": [None]})

A value counts by type: the text "1" is not the number 1, and true is not 1. Where `datasets` knows a field as a ClassLabel, its integer
and its name both work.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TypeAlias

from unlearn_lightning.sources.line_records import pick
from unlearn_lightning.sources.quoting import first_few, listed, quoted, shortened
from unlearn_lightning.sources.readers import SourceRecord

# Spelled out, because jsonargparse would read the text "1" as a number where a setting may be anything.
JSONValue: TypeAlias = str | bool | int | float | list | dict | None


def leave_out(rows: Sequence[SourceRecord], values: Mapping[str, Sequence[JSONValue]]) -> Sequence[SourceRecord]:
    """Returns the rows whose fields have none of the given values.

    Raises:
        ValueError: a row lacks such a field, no row has such a value, or no row is left; the message names the values that there are.
    """
    left_out = {i for field, unwanted in values.items() for i in _having(rows, field, unwanted)}
    if values and len(left_out) == len(rows):
        raise ValueError(f"leave_out leaves no record: each of the {len(rows):,} has a value that is left out by {listed(values)}.")
    return pick(rows, [i for i in range(len(rows)) if i not in left_out]) if left_out else rows


def _having(rows: Sequence[SourceRecord], field: str, unwanted: Sequence[JSONValue]) -> list[int]:
    """The places of the rows whose field has one of the values."""
    if isinstance(unwanted, str) or not isinstance(unwanted, Sequence):
        raise ValueError(f"leave_out: field {quoted(field)} needs a list of values, got {quoted(unwanted)}.")
    found, keys = [], [_key(value) for value in unwanted]
    values: dict[str, None] = {}
    names: dict[str, None] = {}
    for i, row in enumerate(rows):
        if field not in row.fields:
            raise ValueError(
                f"{row.where}: leave_out looks at field {quoted(field)}, but the record has only {listed(sorted(row.fields))}."
            )
        value, labels = row.fields[field], row.label_names.get(field, ())
        own = {_key(value): values} | ({_key(labels[value]): names} if labels and value in range(len(labels)) else {})
        for key, seen in own.items():
            seen.setdefault(key)
        if not own.keys().isdisjoint(keys):
            found.append(i)
    if absent := [key for key in keys if key not in values and key not in names]:
        named = f", named {_values(names)}" if names else ""
        raise ValueError(
            f"leave_out: no record's field {quoted(field)} is {shortened(absent[0])}, from {rows[0].where} on. "
            f"Its values are {_values(values)}"
            f'{named}. Types count: the text "1" is not the number 1.'
        )
    return found


def _values(keys: Iterable[str]) -> str:
    return first_few((shortened(key, 24) for key in keys), most=6)


def _key(value: Any) -> str:
    """The value as JSON, so that types count; 1.0 and 1 are one number, because a table's integers become floats where one is missing."""
    whole = isinstance(value, float) and value.is_integer()
    return json.dumps(int(value) if whole else value, sort_keys=True, ensure_ascii=False, default=str)
