"""A run's records as the report takes them: one that cannot be read costs a reader that record, and not the report.

records, left_out = readable_records(run_folder, "forget")
left_out        # ["records/forget/000004.json (is not JSON: ...)"]
"""

from collections.abc import Callable, Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

from unlearn_lightning.records import Quantity, UnknownFormat, number, read_json, read_run, record_paths
from unlearn_lightning.records.digests import is_as_recorded

Record = dict[str, Any]


def readable_records(folder: Path, probe: str) -> tuple[dict[int, Record], list[str]]:
    """The records of a probe by step, ascending, and which were left out, with the reason.

    Raises:
        UnknownFormat: a record was written by another version, as then no number of it can be trusted.
    """
    found: dict[int, Record] = {}
    left_out = []
    digests = _digests(folder)
    for path in record_paths(folder, probe):
        try:
            facts = digests.get(path.relative_to(folder).as_posix())
            # A probe of which the run recorded nothing is one that somebody added, or that is measured just now.
            if facts is None and any(name.startswith(f"records/{probe}/") for name in digests):
                raise ValueError("is none of those that its run recorded: it is another run's, or its measurement was stopped")
            if facts is not None and not is_as_recorded(path, facts):
                raise ValueError("is not as its run wrote it: it was edited or damaged since")
            found[int(path.stem)] = _checked(read_json(path))
        except UnknownFormat:
            raise
        except (ValueError, OSError) as error:
            why = str(error).removeprefix(f"{path} ")
            left_out.append(f"{path.relative_to(folder)} {why}")
    return found, left_out


def _digests(folder: Path) -> Record:
    """What run.json says of the files that a finished run wrote; nothing where it is not finished, or cannot be read."""
    try:
        run = read_run(folder)
    except (OSError, ValueError):
        return {}
    return run.get("files") or {} if run["status"] == "finished" else {}


def _checked(record: Record) -> Record:
    """The record with numbers as numbers: nan where there was no finite one.

    Raises:
        ValueError: a part of it has another type than docs/runs.md says.
    """
    metrics, examples = record.get("metrics", {}), record.get("examples", [])
    if not isinstance(metrics, dict) or not isinstance(examples, list):
        raise ValueError("holds no object of metrics and list of examples")
    _check_quantities(record)
    return {**record, "metrics": _read(dict.fromkeys(metrics, number), metrics), "examples": [_example(one) for one in examples]}


def _check_quantities(record: Record) -> None:
    """Refuses a record whose words for its metrics are not what a probe writes."""
    quantities = record.get("quantities", {})
    if not isinstance(quantities, dict) or not all(isinstance(one, dict) and set(one) <= QUANTITY for one in quantities.values()):
        raise ValueError("holds quantities that are no objects of title, unit and better")
    if not all(isinstance(one.get("title"), str) and isinstance(one.get("unit", ""), str) for one in quantities.values()):
        raise ValueError("holds a quantity whose title or unit is no text")


def _example(example: Any) -> Record:
    if not isinstance(example, dict) or not isinstance(example.get("id"), str):
        raise ValueError(f"has an example without an id, {example!r:.40}")
    return {**example, **_read({name: read for name, read in READ.items() if name in example}, example)}


def _read(readers: Mapping[str, Callable[[Any], Any]], values: Record) -> Record:
    found = {}
    for name, read in readers.items():
        try:
            found[name] = read(values[name])
        except ValueError as error:
            raise ValueError(f"has a wrong {name}: {error}") from None
    return found


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise ValueError(f"{value!r:.40} is not a text")
    return value


def _list_of(read: Callable[[Any], Any]) -> Callable[[Any], list[Any]]:
    def each(value: Any) -> list[Any]:
        if not isinstance(value, list):
            raise ValueError(f"{value!r:.40} is not a list")
        return [read(one) for one in value]

    return each


def _truth(value: Any) -> bool:
    if not isinstance(value, bool):
        raise ValueError(f"{value!r:.40} is neither true nor false")
    return value


QUANTITY = {one.name for one in fields(Quantity)}
# The report looks at these fields of examples only; it never reads the others that a probe may write.
READ: dict[str, Callable[[Any], Any]] = {
    "text": _text, "response": _text, "attempts": _list_of(_text), "correct": _list_of(_truth), "token_log_lik": _list_of(number),
    "label_log_lik": number,
}  # fmt: skip
