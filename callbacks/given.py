"""What a probe gives is looked at before it is averaged or written, so that a mistake in one is named with its class.

rows = checked_rows(probe, probe.predict(...), 16)
# ValueError: The probe length (my_metrics.ResponseLength): predict gave 15 rows for 16 examples; expected one for each.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from unlearn_lightning.records.texts import plain_text


def checked_rows(probe: Any, rows: Any, count: int) -> list[dict[str, Any]]:
    """The rows of a chunk of examples.

    Raises:
        ValueError: they are not one mapping of JSON values for each example.
    """
    if not isinstance(rows, list | tuple) or not all(isinstance(row, Mapping) for row in rows):
        raise ValueError(f"{_name(probe)}: predict gave {_kind(rows)}; expected a list with one mapping for each example.")
    if len(rows) != count:
        raise ValueError(f"{_name(probe)}: predict gave {len(rows)} rows for {count} examples; expected one for each.")
    try:
        json.dumps(rows)
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"{_name(probe)}: predict gave values that JSON cannot hold ({error}); expected numbers, texts and lists."
        ) from None
    return list(rows)


def checked_metrics(probe: Any, metrics: Any) -> dict[str, float]:
    """The metrics of all rows.

    Raises:
        ValueError: they are not numbers by names that can be printed.
    """
    if not isinstance(metrics, Mapping):
        raise ValueError(f"{_name(probe)}: metrics gave {_kind(metrics)}; expected a mapping of names to numbers.")
    for name, value in metrics.items():
        if not isinstance(name, str) or plain_text(name) != name or not name.strip():
            raise ValueError(f"{_name(probe)}: metrics gave the name {name!r}; expected a text that metric_key made.")
        try:
            float(value)
        except (TypeError, ValueError):
            raise ValueError(f"{_name(probe)}: metrics gave {_kind(value)} for {name}; expected a number.") from None
        if isinstance(value, str):
            raise ValueError(f"{_name(probe)}: metrics gave the text {value[:20]!r} for {name}; expected a number.")
    return dict(metrics)


def _name(probe: Any) -> str:
    return f"The probe {probe.name} ({type(probe).__module__}.{type(probe).__qualname__})"


def _kind(value: Any) -> str:
    held = f" with {type(value[0]).__name__}" if isinstance(value, list | tuple) and value else ""
    return f"{type(value).__name__}{held}"
