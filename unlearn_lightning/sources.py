"""Rows of text from local JSON / JSON-lines files, folders in the format of `datasets`, or the Hugging Face Hub.

rows = read_rows("data/gsm8k/train.jsonl")          # [Row(where="data/gsm8k/train.jsonl:1", fields={"question": ..., ...}), ...]
rows = read_rows("hub:openai/gsm8k/main", "test")   # needs `datasets` and, the first time, the network
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

HUB = "hub:"
ROOT_VARIABLE = "UNLEARN_DATA"


class HubError(OSError):
    """A Hub data set could not be read, or a Hub model not be found; `name` is its name."""

    def __init__(self, name: str, why: str, kind: str = "data set") -> None:
        page = ("datasets/" if kind == "data set" else "") + "/".join(name.split("/")[:2])
        folder = "" if kind == "data set" else " There is no folder of that name here either."
        super().__init__(
            f"The Hub {kind} {name} could not be read ({why}).{folder} Is there a network, and do you have access to it? Apply for a gated "
            f"{kind} on https://huggingface.co/{page}, then `hf auth login` or set HF_TOKEN."
        )
        self.name = name


class Row(NamedTuple):
    """One record and where it came from, for error messages."""

    where: str
    fields: dict[str, Any]

    def text(self, field: str) -> str:
        """The field's text; of a list with one text, that text.

        Raises:
            ValueError: the field is missing, is no text, or is blank; the message names the place and the fields there are.
        """
        value = self.fields.get(field)
        if isinstance(value, list) and len(value) == 1:
            value = value[0]
        if not isinstance(value, str) or not value.strip():
            found = "is missing" if field not in self.fields else f"is {value!r}"
            raise ValueError(
                f"{self.where}: field {field!r} {found}; expected a non-empty text. The record has the fields "
                f"{sorted(self.fields)}. Name the right ones with prompt_field and response_field."
            )
        return value


def data_root(folder: str | None) -> Path:
    """The folder of local data files: the argument, or else the environment variable UNLEARN_DATA.

    Raises:
        ValueError: neither is set.
        NotADirectoryError: it is no folder.
    """
    chosen = folder or os.environ.get(ROOT_VARIABLE)
    if not chosen:
        raise ValueError(f"source 'files' needs a folder: set data_root, or the environment variable {ROOT_VARIABLE}.")
    if not Path(chosen).is_dir():
        raise NotADirectoryError(f"The data folder {chosen} (data_root or {ROOT_VARIABLE}) is not a folder.")
    return Path(chosen)


def read_rows(source: str, split: str = "train") -> list[Row]:
    """Reads a file (`.json` array or JSON lines, told apart by content), a folder that `datasets` wrote (`save_to_disk`) or loads (files
    of one data set), or a Hub data set `hub:owner/name[/config]`.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is empty, or a line is not a JSON object (the message names file and line).
    """
    if source.startswith(HUB):
        rows = _hub_rows(source[len(HUB) :], split)
    else:
        rows = _folder_rows(Path(source), split) if Path(source).is_dir() else _file_rows(Path(source))
    if not rows:
        raise ValueError(f"{source} holds no records.")
    return rows


def leave_out(rows: list[Row], values: Mapping[str, Sequence[str]]) -> list[Row]:
    """The rows whose fields have none of the given values, such as {"prompt_style": ["ascii", "morse"]}.

    Raises:
        ValueError: a row lacks such a field, or no row is left.
    """
    for field, unwanted in values.items():
        for row in rows:
            if field not in row.fields:
                raise ValueError(f"{row.where}: leave_out looks at field {field!r}, but the record has only {sorted(row.fields)}.")
        found = {str(row.fields[field]) for row in rows}
        rows = [row for row in rows if row.fields[field] not in unwanted]
        if not rows:
            raise ValueError(f"leave_out leaves no record: field {field!r} is {sorted(found)} throughout, and all of that is left out.")
    return rows


def _folder_rows(path: Path, split: str) -> list[Row]:
    import datasets

    try:
        if (path / "state.json").is_file() or (path / "dataset_dict.json").is_file():
            table = datasets.load_from_disk(str(path))
            table = table[split] if isinstance(table, datasets.DatasetDict) else table
        else:
            table = datasets.load_dataset(str(path), split=split)
    except Exception as error:
        raise ValueError(
            f"The folder {path} could not be read as a data set ({type(error).__name__}: {str(error).splitlines()[0]})."
        ) from error
    return [Row(f"{path} {split}[{i}]", dict(fields)) for i, fields in enumerate(table)]


def _hub_rows(name: str, split: str) -> list[Row]:
    import datasets

    owner, _, rest = name.partition("/")
    dataset, _, config = rest.partition("/")
    path = f"{owner}/{dataset}" if dataset else owner
    try:
        table = datasets.load_dataset(path, config or None, split=split)
    except Exception as error:
        raise HubError(name, f"{type(error).__name__}: {str(error).splitlines()[0]}") from error
    return [Row(f"{HUB}{name} {split}[{i}]", dict(fields)) for i, fields in enumerate(table)]


def _file_rows(path: Path) -> list[Row]:
    if not path.is_file():
        raise FileNotFoundError(f"There is no data file {path}. Give a .json / .jsonl file, or `hub:owner/name`.")
    text = path.read_text(encoding="utf-8")
    if text.lstrip().startswith("["):
        try:
            items = json.loads(text)
        except json.JSONDecodeError as error:
            raise ValueError(f"{path}:{error.lineno}: not JSON ({error.msg}).") from None
        found = [(f"{path}[{i}]", item) for i, item in enumerate(items)]
    else:
        found = []
        for number, line in enumerate(text.split("\n"), start=1):
            if line.strip():
                try:
                    found.append((f"{path}:{number}", json.loads(line)))
                except json.JSONDecodeError as error:
                    raise ValueError(f"{path}:{number}: not JSON ({error.msg}): {line[:60]!r}") from None
    for where, item in found:
        if not isinstance(item, dict):
            raise ValueError(f"{where}: expected a JSON object with named fields, got {type(item).__name__}.")
    return [Row(where, item) for where, item in found]
