"""The records of a large JSON-lines file, of which only the places are held in memory; each line is parsed when it is asked for.

records = LineRecords.of(path, parse)       # None where the first line is no object, so that the file is something else
records[7], records[:100], records.pick([3, 1])
"""

from __future__ import annotations

import os
from array import array
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, overload

import numpy as np

EXPECTED = "Expected is UTF-8 text with one JSON object a line (JSON lines), or one JSON array of objects"
# Of bytes: a blank line may be of other spaces than ASCII's, and then is short.
SHORT = 64
BYTE_ORDER_MARK = b"\xef\xbb\xbf"


class LineRecords(Sequence[Any]):
    """Some lines of a file in some order, as records.

    Args:
        path: of the file.
        places: (N, 3) int64: where each line begins, how many bytes it has, and its number from 1.
        parse: makes a record of a line's number and its text.
        stamp: size and time of the file when its lines were found.
    """

    def __init__(self, path: Path, places: Any, parse: Callable[[int, str], Any], stamp: tuple[int, int]) -> None:
        self.path, self.places, self.parse, self.stamp = path, places, parse, stamp
        self._file: Any = None

    @classmethod
    def of(cls, path: Path, parse: Callable[[int, str], Any]) -> LineRecords | None:
        """All lines that are not blank; None where the first of them is no record by itself, as in a file that is one JSON value."""
        found, start = array("q"), 0
        with path.open("rb") as file:
            stamp = _stamp(file)
            for number, line in enumerate(file, start=1):
                mark = len(BYTE_ORDER_MARK) if number == 1 and line.startswith(BYTE_ORDER_MARK) else 0
                text = line[mark:]
                if text.strip() and (len(text) >= SHORT or text.decode("utf-8", "ignore").strip()):
                    found.extend((start + mark, len(text), number))
                start += len(line)
        records = cls(path, np.array(found, dtype=np.int64).reshape(-1, 3), parse, stamp)
        try:
            return records if found and records[0] is not None else None
        except ValueError:
            return None

    def __len__(self) -> int:
        return len(self.places)

    @overload
    def __getitem__(self, index: int) -> Any: ...
    @overload
    def __getitem__(self, index: slice) -> LineRecords: ...
    def __getitem__(self, index: int | slice) -> Any:
        """One record, or some of them as they are.

        Raises:
            ValueError: the line is no JSON object in UTF-8, or the file was changed meanwhile.
        """
        if isinstance(index, slice):
            return self._with(self.places[index])
        start, size, number = (int(value) for value in self.places[index])
        line = self._read(start, size)
        try:
            return self.parse(number, line.decode("utf-8"))
        except UnicodeDecodeError as error:
            raise ValueError(not_utf8(self.path, number, start + error.start, line[error.start], error.reason)) from None

    def pick(self, indices: Iterable[int]) -> LineRecords:
        """The records at these places, in this order."""
        return self._with(self.places[np.fromiter(indices, dtype=np.int64)])

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "_file": None}

    def _with(self, places: Any) -> LineRecords:
        return LineRecords(self.path, places, self.parse, self.stamp)

    def _read(self, start: int, size: int) -> bytes:
        if self._file is None:
            self._file = self.path.open("rb")
        if _stamp(self._file) != self.stamp:
            raise ValueError(f"{self.path} was changed while it was read. Start again when it is whole.")
        return os.pread(self._file.fileno(), size, start)


def pick(rows: Sequence[Any], indices: Iterable[int]) -> Sequence[Any]:
    """The rows at these places, in this order; of lines that are read later no more than their places."""
    return rows.pick(indices) if isinstance(rows, LineRecords) else [rows[i] for i in indices]


def not_utf8(path: Path, line: int, place: int, byte: int, reason: str) -> str:
    """Says which byte of a file is not UTF-8."""
    return (
        f"{path}:{line}: byte {place:,} of the file is 0x{byte:02x}, which is not UTF-8 ({reason}). {EXPECTED}: convert it, for example "
        "with `iconv -f ISO-8859-1 -t UTF-8 OLD > NEW` if it is Latin-1."
    )


def _stamp(file: Any) -> tuple[int, int]:
    status = os.fstat(file.fileno())
    return status.st_size, status.st_mtime_ns
