"""What is made of a large source once and read again: the tokens of its examples, in Arrow, and its fingerprint.

    examples = stored(key, what, tables, facts)       # a sequence of Encoded whose tokens stay on disk
    kept_text(key, make)

Everything lies below UNLEARN_CACHE, or else the user's usual folder for such files, in a folder named by a digest of all that decides it:
the source's content, the tokenizer, the template, the stage's settings and the code. What is damaged is made again.
"""

from __future__ import annotations

import fcntl
import hashlib
import itertools
import json
import os
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, overload

import numpy as np
from lightning.pytorch.utilities.rank_zero import rank_zero_info

from unlearn_lightning.data.examples import Encoded
from unlearn_lightning.records import write_json

VARIABLE = "UNLEARN_CACHE"
TOKENS, FACTS = "tokens.arrow", "facts.json"
# Raised where the files below change their meaning.
FORMAT = 1


def folder() -> Path:
    """Where such files lie.

    Raises:
        OSError: the folder that UNLEARN_CACHE names cannot be written.
    """
    if named := os.environ.get(VARIABLE):
        Path(named).mkdir(parents=True, exist_ok=True)
        return Path(named)
    usual = Path(os.environ.get("XDG_CACHE_HOME") or Path("~/.cache").expanduser()) / "unlearn_lightning"
    with suppress(OSError):
        usual.mkdir(parents=True, exist_ok=True)
    # Where there is no home, or one that cannot be written, as in some containers.
    return usual if os.access(usual, os.W_OK) else Path(tempfile.gettempdir()) / f"unlearn_lightning-{os.getuid()}"


class StoredExamples(Sequence[Encoded]):
    """Examples whose tokens are on disk, mapped into memory and made into lists when they are asked for.

    Attributes:
        lengths: tokens of each example.
        longest: the most tokens that an example has, and that a response has.
        cut: how many responses were longer than there was room for.
        facts: what was noted when they were made.
    """

    def __init__(self, path: Path, facts: dict[str, Any]) -> None:
        import pyarrow.compute

        self.facts = facts
        with pyarrow.memory_map(str(path)) as file:
            self._rows = pyarrow.ipc.open_stream(file).read_all()
        columns = (self._rows.column(name) for name in ("prompt", "response"))
        # By DLPack, as `to_numpy` imports pandas.
        prompt, response = (
            np.concatenate([np.from_dlpack(chunk) for chunk in pyarrow.compute.list_value_length(column).chunks]) for column in columns
        )
        self.lengths: tuple[int, ...] = tuple((prompt + response).tolist())
        self.longest = (int((prompt + response).max()), int(response.max()))
        self.cut = int(pyarrow.compute.sum(self._rows.column("truncated")).as_py())

    def __len__(self) -> int:
        return len(self.lengths)

    @overload
    def __getitem__(self, index: int) -> Encoded: ...
    @overload
    def __getitem__(self, index: slice) -> list[Encoded]: ...
    def __getitem__(self, index: int | slice) -> Encoded | list[Encoded]:
        """One example, or some."""
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        if not -len(self) <= index < len(self):
            raise IndexError(index)
        row = self._rows.slice(index % len(self), 1).to_pylist()[0]
        name, prompt = row["id"], row["prompt"]
        second = None if row["second"] is None else Encoded(name, row["second_prompt"], row["second"], row["second_truncated"])
        return Encoded(name, prompt, row["response"], row["truncated"], second)


def stored(key: str, what: str, tables: Callable[[], Iterator[Any]], facts: Callable[[], dict[str, Any]]) -> StoredExamples:
    """The examples that are kept under a key, which are made where they are not there or damaged.

    Several processes may ask at once: one makes them, and the others wait.

    Args:
        key: a digest of all that decides them.
        what: they are, for the line that says where they lie.
        tables: makes them, some at a time, as `table` has them.
        facts: what else is kept with them, as JSON; asked when all are made.
    """
    place = folder() / "tokens" / key
    with _alone(place):
        found = _read(place)
        if found is None:
            if (place / FACTS).exists():
                rank_zero_info(f"{place} is damaged, so that the tokens are made again.")
            _write(place, tables(), facts)
            found = _read(place)
            assert found is not None
            rank_zero_info(f"{what}: the tokens are kept in {place}; {VARIABLE} names another folder.")
        else:
            rank_zero_info(f"{what}: the tokens are those kept in {place}.")
    return found


def kept_text(key: str, make: Callable[[], str]) -> str:
    """A short text, such as a fingerprint, that is kept under a key."""
    path = folder() / "texts" / f"{key}.json"
    with suppress(OSError, ValueError, KeyError, TypeError, RecursionError):
        content = json.loads(path.read_text(encoding="utf-8"))
        if content["digest"] == _digest(content["text"].encode()):
            return str(content["text"])
    text = make()
    write_json(path, {"text": text, "digest": _digest(text.encode())})
    return text


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


@contextmanager
def _alone(place: Path) -> Iterator[None]:
    place.mkdir(parents=True, exist_ok=True)
    with (place / "lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _read(place: Path) -> StoredExamples | None:
    try:
        content = json.loads((place / FACTS).read_text(encoding="utf-8"))
        with (place / TOKENS).open("rb") as file:
            is_whole = content["sha256"] == hashlib.file_digest(file, "sha256").hexdigest()
        return StoredExamples(place / TOKENS, content["facts"]) if is_whole else None
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return None


def _write(place: Path, tables: Iterator[Any], facts: Callable[[], dict[str, Any]]) -> None:
    """Writes the tokens and then, as the sign that they are whole, the facts."""
    import pyarrow

    (place / FACTS).unlink(missing_ok=True)
    # Under another name until it is whole: a process that has mapped the damaged file keeps what it sees.
    unfinished = place / f".{TOKENS}"
    with pyarrow.OSFile(str(unfinished), "wb") as file, pyarrow.ipc.new_stream(file, _schema()) as writer:
        for some in tables:
            writer.write_table(some)
    unfinished.replace(place / TOKENS)
    with (place / TOKENS).open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    write_json(place / FACTS, {"sha256": digest, "facts": facts()})


def table(examples: Sequence[Encoded]) -> Any:
    """Examples as a table of Arrow's."""
    import pyarrow

    return pyarrow.table(_columns(examples), schema=_schema())


def _schema() -> Any:
    import pyarrow

    tokens, flag = pyarrow.list_(pyarrow.int32()), pyarrow.bool_()
    return pyarrow.schema({
        "id": pyarrow.string(), "prompt": tokens, "response": tokens, "truncated": flag, "second_prompt": tokens, "second": tokens,
        "second_truncated": flag,
    })  # fmt: skip


def _columns(chunk: Sequence[Encoded]) -> dict[str, Any]:
    seconds = [one.alternative for one in chunk]
    return {
        "id": [one.id for one in chunk],
        "prompt": _lists([one.prompt_ids for one in chunk]),
        "response": _lists([one.response_ids for one in chunk]),
        "truncated": [one.truncated for one in chunk],
        "second_prompt": _lists([None if one is None else one.prompt_ids for one in seconds]),
        "second": _lists([None if one is None else one.response_ids for one in seconds]),
        "second_truncated": [None if one is None else one.truncated for one in seconds],
    }


def _lists(lists: Sequence[list[int] | None]) -> Any:
    """Lists of tokens as one array of Arrow's, which looks at each number of a list of lists ten times as long."""
    import pyarrow

    there = [one or [] for one in lists]
    ends = np.cumsum([0, *map(len, there)], dtype=np.int32)
    values = np.fromiter(itertools.chain.from_iterable(there), dtype=np.int32, count=int(ends[-1]))
    return pyarrow.ListArray.from_arrays(ends, values, mask=pyarrow.array([one is None for one in lists]))
