"""Rows of text from local JSON / JSON-lines files, folders in the format of `datasets`, or the Hugging Face Hub.

rows = read_rows("data/gsm8k/train.jsonl")          # [SourceRecord(where="data/gsm8k/train.jsonl:1", fields={"question": ..., ...}), ...]
rows = read_rows("hub:openai/gsm8k/main", "test")   # needs `datasets` and, the first time, the network
"""

from __future__ import annotations

import codecs
import json
import os
import re
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from unlearn_lightning.sources.hub_error import HubError as HubError
from unlearn_lightning.sources.line_records import EXPECTED, LineRecords, not_utf8
from unlearn_lightning.sources.quoting import check_characters, first_line, listed, quoted, shortened

HUB, ROOT_VARIABLE = "hub:", "UNLEARN_DATA"
# Lines of a file of so many bytes are parsed when they are asked for, and what was made of them is kept (data/token_store.py).
LARGE = 4 * 2**20
# JSON can write half of a surrogate pair ("\ud83d"), which is no character and can be written to no file.
_SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")
# How files begin that are no text: their kind, for which UTF-8 would be wrong advice.
_OTHER_KINDS = {
    b"\x1f\x8b": "compressed by gzip", b"\x28\xb5\x2f\xfd": "compressed by Zstandard", b"BZh": "compressed by bzip2",
    b"\xfd7zXZ\0": "compressed by xz", b"PK\x03\x04": "a zip archive", b"PAR1": "a Parquet table", b"ARROW1": "an Arrow table",
    b"SQLite format 3\0": "an SQLite database",
}  # fmt: skip
OR_FOLDER = ": unpack or convert it, or put it into a folder of its own and name the folder, which `datasets` reads"
_UTF_16_OR_32 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE, codecs.BOM_UTF32_LE, codecs.BOM_UTF32_BE)


class NoDataFile(FileNotFoundError):
    """A data file that a setting names is not there."""


class SourceRecord(NamedTuple):
    """One record and where it came from, for error messages.

    Attributes:
        where: its file and line, or its data set and number.
        fields: name -> value.
        label_names: field -> the names of its labels, where `datasets` knows the field as a ClassLabel, whose values are integers.
    """

    where: str
    fields: dict[str, Any]
    label_names: Mapping[str, Sequence[str]] = {}

    def text(self, field: str) -> str:
        """The field's text; of a list with one text, that text.

        Raises:
            ValueError: the field is missing, is no text, or is blank; the message names the place and the fields there are.
        """
        value = self.fields.get(field)
        if isinstance(value, list) and len(value) == 1:
            value = value[0]
        if isinstance(value, str) and value.strip():
            return value
        found = f"is {quoted(value)}" if field in self.fields else "is missing"
        number = isinstance(value, int | float) and not isinstance(value, bool)
        advice = (
            shape(self.fields)
            or ("Write the number as a text, in quotes, if the model is to say it." if number else "")
            or ("A plain text is read by TextStage (--data TextStage)." if self.fields.keys() == {"text"} else "")
            or ("Fill it in, or leave the record out." if field in self.fields and value in (None, "", []) else "")
            or "Name the right ones with prompt_field and response_field."
        )
        raise ValueError(
            f"{self.where}: field {quoted(field)} {found}; expected a non-empty text. The record has the fields "
            f"{listed(sorted(self.fields))}. {advice}"
        )


def shape(fields: Mapping[str, Any]) -> str:
    """What an object seems to be that holds many records instead of being one, and what to do; empty for a record."""
    for name, value in fields.items():
        if isinstance(value, list) and value and all(isinstance(item, dict) for item in value) and not is_conversation(value):
            return (
                f"Its field {quoted(name)} holds a list of {len(value):,} object(s). If these are the records, write them to a file of "
                f"their own. {EXPECTED}."
            )
    sizes = {len(value) if isinstance(value, list | dict) else 0 for value in fields.values()}
    if len(sizes) == 1 and max(sizes) > 1 and not any(map(is_conversation, fields.values())):
        return (
            f"This is one object with whole columns: each field holds {max(sizes):,} values. {EXPECTED}; pandas writes it with "
            "to_json(path, orient='records', lines=True)."
        )
    return ""


def is_conversation(value: Any) -> bool:
    """Whether a field's value is a list of messages as OpenAI (`role`) or ShareGPT (`from`) write them."""
    return isinstance(value, list) and bool(value) and all(isinstance(item, dict) and {"role", "from"} & item.keys() for item in value)


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


def read_rows(source: str, split: str = "train") -> Sequence[SourceRecord]:
    """Reads the records of a file, a folder or a Hub data set.

    A file holds a JSON array or JSON lines, told apart by their content; a `.txt` file is one text. A folder is one that `datasets`
    wrote (`save_to_disk`) or loads (files of one data set). A Hub data set is written `hub:owner/name[/config][:split]`.

    Args:
        source: the path of the file or folder, or the Hub data set.
        split: what is read of a folder or Hub data set that names no split itself; a file has none.

    Raises:
        NoDataFile: there is no such file.
        ValueError: the file is empty, is not UTF-8, or a line is not a JSON object (the message names file and line).
    """
    if source.startswith(HUB):
        rows: Sequence[SourceRecord] = _hub_rows(source[len(HUB) :], split)
    else:
        rows = _folder_rows(Path(source), split) if Path(source).is_dir() else _file_rows(Path(source))
    if not rows:
        raise ValueError(f"{source} holds no records. {EXPECTED}.")
    return rows


def _folder_rows(path: Path, split: str) -> list[SourceRecord]:
    import datasets

    try:
        if (path / "state.json").is_file() or (path / "dataset_dict.json").is_file():
            table = datasets.load_from_disk(str(path))
            table = table[split] if isinstance(table, datasets.DatasetDict) else table
        else:
            table = datasets.load_dataset(str(path), split=split)
    except Exception as error:
        raise ValueError(f"The folder {path} could not be read as a data set ({first_line(error)}).") from error
    return _table_rows(f"{path} {split}", table)


def _hub_rows(name: str, split: str) -> list[SourceRecord]:
    import datasets

    place, _, split = name.partition(":") if ":" in name else (name, "", split)
    owner, _, rest = place.partition("/")
    dataset, _, config = rest.partition("/")
    path = f"{owner}/{dataset}" if dataset else owner
    try:
        table = datasets.load_dataset(path, config or None, split=split)
    except Exception as error:
        raise HubError(name, first_line(error)) from error
    return _table_rows(f"{HUB}{name} {split}", table)


def _table_rows(where: str, table: Any) -> list[SourceRecord]:
    from datasets import ClassLabel

    names = {name: tuple(feature.names) for name, feature in table.features.items() if isinstance(feature, ClassLabel)}
    return [SourceRecord(f"{where}[{i}]", dict(fields), names) for i, fields in enumerate(table)]


def _file_rows(path: Path) -> Sequence[SourceRecord]:
    if not path.is_file():
        where = "" if path.is_absolute() else f" in {Path.cwd()}"
        raise NoDataFile(f"There is no data file {path}{where}. Give a .json / .jsonl file, or `hub:owner/name`.")
    if path.stat().st_size >= LARGE:
        with path.open("rb") as file:
            _refuse_other_kinds(path, file.read(16))
        if (lines := LineRecords.of(path, partial(_line_record, path))) is not None:
            return lines
    text = _decoded(path)
    if path.suffix == ".txt":
        return [SourceRecord(str(path), {"text": text})] if text.strip() else []
    found = _array_items(path, text) if text.lstrip().startswith("[") else _line_items(path, text)
    surrogates = _SURROGATE.search(text) is not None
    return [_record(where, item, surrogates) for where, item in found]


def _line_record(path: Path, number: int, line: str) -> SourceRecord:
    """One line of a large file.

    Raises:
        ValueError: it is not a JSON object.
    """
    where = f"{path}:{number}"
    try:
        item = _DECODER.decode(line)
    except json.JSONDecodeError as error:
        raise ValueError(_not_json(where, error, line)) from None
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{where}: not JSON that can be read ({shortened(str(error))}).") from None
    return _record(where, item, _SURROGATE.search(line) is not None)


def _record(where: str, item: Any, surrogates: bool) -> SourceRecord:
    if not isinstance(item, dict):
        raise ValueError(f"{where}: expected a JSON object with named fields, got {type(item).__name__} {quoted(item)}. {EXPECTED}.")
    if surrogates:
        check_characters(where, item)
    return SourceRecord(where, item)


def _not_json(where: str, error: json.JSONDecodeError, line: str) -> str:
    is_table = where.rpartition(":")[0].lower().endswith((".csv", ".tsv"))
    return f"{where}: not JSON ({error.msg}): {quoted(line)}. {EXPECTED}{OR_FOLDER if is_table else ''}."


def _decoded(path: Path) -> str:
    """The file's text, without the byte order mark that Windows puts before it.

    Raises:
        ValueError: it is not UTF-8; the message names the line and the byte.
    """
    content = path.read_bytes()
    _refuse_other_kinds(path, content[:16])
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise ValueError(not_utf8(path, line, error.start, content[error.start], error.reason)) from None


def _refuse_other_kinds(path: Path, content: bytes) -> None:
    """Refuses a file that is no text, by its first bytes."""
    if kind := next((kind for start, kind in _OTHER_KINDS.items() if content.startswith(start)), None):
        raise ValueError(f"{path} is {kind}. {EXPECTED}{OR_FOLDER} if it knows the kind.")
    if content.startswith(_UTF_16_OR_32) or b"\0" in content[:4]:
        raise ValueError(
            f"{path}:1: this is UTF-16 or UTF-32, or no text at all (its first bytes are {content[:4].hex(' ')}). {EXPECTED}: convert "
            "it, for example with `iconv -f UTF-16 -t UTF-8 OLD > NEW`."
        )


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object's fields, each named once: which of two values is meant cannot be known.

    Raises:
        ValueError: a name stands there twice.
    """
    fields = dict(pairs)
    if len(fields) < len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"field {quoted(next(name for name in fields if names.count(name) > 1))} is there twice in one object")
    return fields


_DECODER = json.JSONDecoder(object_pairs_hook=_once)


def _array_items(path: Path, text: str) -> list[tuple[str, Any]]:
    try:
        items = _DECODER.decode(text)
    except json.JSONDecodeError as error:
        raise ValueError(f"{path}:{error.lineno}: not JSON ({error.msg}). {EXPECTED}.") from None
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path}: not JSON that can be read ({shortened(str(error))}).") from None
    return [(f"{path}[{i}]", item) for i, item in enumerate(items)]


def _line_items(path: Path, text: str) -> list[tuple[str, Any]]:
    found: list[tuple[str, Any]] = []
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        try:
            found.append((f"{path}:{number}", _DECODER.decode(line)))
        except json.JSONDecodeError as error:
            # An object that is spread over several lines is one record, or one of the shapes that the record then names.
            if not found and (whole := _whole(text)) is not None:
                return [(f"{path}:{number}", whole)]
            raise ValueError(_not_json(f"{path}:{number}", error, line)) from None
        except (ValueError, RecursionError) as error:
            raise ValueError(f"{path}:{number}: not JSON that can be read ({shortened(str(error))}).") from None
    return found


def _whole(text: str) -> Any:
    """The file as one JSON value; None when it is not."""
    try:
        return _DECODER.decode(text)
    except (ValueError, RecursionError):
        return None
