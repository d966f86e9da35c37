"""Run and study folders as files: written whole or not at all, read with a check of the format. docs/runs.md describes them.

records = read_records(run_folder, "forget")      # {0: {"metrics": {"forget/label_log_lik": -0.2, ...}, "examples": [...]}, 4: ...}
"""

from __future__ import annotations

import fcntl
import json
import math
import os
import re
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, TextIO

from unlearn_lightning.records.disk import writing

FORMAT = 1
# What run.json of a finished run says at least, whoever reads it; who starts from the run asks for its key and result, too.
FINISHED = ("kind", "steps")
LEFT_OVER = re.compile(r"\..+\.(csv|html|json|jsonl|md|sh|svg|txt|yaml)\.[a-z0-9_]+|\.writable-.*")
"""Names of files that are being written, and that former versions wrote to see whether they could."""


@dataclass(frozen=True)
class Quantity:
    """What a metric's number means; a probe writes it into its records, and the report and the loggers read it from there.

    Attributes:
        title: what tables and figures call it, such as `label log-likelihood`.
        unit: such as `nats/token`, `nats`, `share`, `tokens`; empty for a pure number.
        better: whether a `higher` or a `lower` value keeps or gains what is measured; null where neither is better as such.
    """

    title: str
    unit: str = ""
    better: Literal["higher", "lower"] | None = None

    @classmethod
    def of(cls, record: Mapping[str, Any], metric: str) -> Quantity:
        """What a record says about one of its metrics; the metric's own name where it says nothing, as older records do."""
        said = (record.get("quantities") or {}).get(metric)
        return cls(**said) if said else cls(metric.rpartition("/")[2].replace("_", " "))

    def as_json(self) -> dict[str, Any]:
        """The fields by name, as a record holds them."""
        return asdict(self)


class UnknownFormat(ValueError):
    """A file is whole, but of another version's format."""


def write_text(path: Path, text: str) -> None:
    """Writes a file so that a reader, or a crash at any point, sees the old content or the new, never a part of it.

    Raises:
        DiskFull: there is no space left.
    """
    with written_whole(path) as file:
        file.write(text)


@contextmanager
def written_whole(path: Path, newline: str | None = None) -> Iterator[TextIO]:
    """A file to write into, which takes the path's place when the block ends without an error.

    Raises:
        DiskFull: there is no space left.
    """
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        with _replacing(path, newline) as file:
            yield file


@contextmanager
def _replacing(path: Path, newline: str | None) -> Iterator[TextIO]:
    handle, temporary = _temporary(path)
    try:
        # Open, and so locked, until it has its name.
        with os.fdopen(handle, "w", encoding="utf-8", newline=newline) as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
            os.chmod(temporary, 0o644)
            os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def _temporary(path: Path) -> tuple[int, str]:
    """A new file beside the path, and a lock on it."""
    while True:
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        fcntl.flock(handle, fcntl.LOCK_SH)
        # False where somebody has cleared it away before it was locked.
        if os.path.exists(name):
            return handle, name
        os.close(handle)


def remove_left_overs(folder: Path) -> None:
    """Deletes what writers that were killed left in the folder and those below it; what a live one holds locked stays."""
    for path in folder.rglob(".*"):
        if not LEFT_OVER.fullmatch(path.name) or not path.is_file():
            continue
        with suppress(OSError), path.open() as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            path.unlink()


def write_json(path: Path, content: Mapping[str, Any], indent: int | None = None) -> None:
    """`write_text` of a versioned JSON object. What is no finite number is null, as JSON knows neither NaN nor Infinity.

    Args:
        path: where the file goes.
        content: the object, to which the version of the format is added.
        indent: the number of spaces per level; null for one line.
    """
    whole = {"format": FORMAT, **content}
    try:
        text = json.dumps(whole, indent=indent, allow_nan=False)
    except ValueError:
        text = json.dumps(_finite(whole), indent=indent, allow_nan=False)
    write_text(path, text + "\n")


def _finite(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {name: _finite(one) for name, one in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(one) for one in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def number(value: Any) -> float:
    """A number of a record: null is nan, and so is what older versions wrote as NaN or Infinity, which is no JSON.

    Raises:
        ValueError: it is neither a number nor null.
    """
    if value is None:
        return math.nan
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError(f"{value!r:.40} is not a number")
    return float(value) if math.isfinite(value) else math.nan


def read_json(path: Path) -> dict[str, Any]:
    """Reads a versioned JSON object.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is not JSON, or, as UnknownFormat, of a format this version does not know.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except RecursionError:
        raise ValueError(f"{path} is not JSON that can be read: it is nested too deeply. Was it edited by hand?") from None
    except ValueError as error:
        raise ValueError(f"{path} is not JSON ({error}). Was it edited by hand, or is the disk damaged?") from None
    if not isinstance(content, dict):
        raise ValueError(f"{path} holds no JSON object but {content!r:.40}. Was it edited by hand, or is the disk damaged?")
    if content.get("format") != FORMAT:
        raise UnknownFormat(
            f"{path} has format {content.get('format')!r}; this version reads format {FORMAT}. Use the version that wrote it."
        )
    return content


def read_run(folder: Path) -> dict[str, Any]:
    """The content of a run folder's run.json.

    Raises:
        FileNotFoundError: there is none.
        ValueError: it is damaged, of another format, or says that the run is finished and lacks what then belongs there.
    """
    path = Path(folder) / "run.json"
    run = read_json(path)
    needed = FINISHED if run.get("status") == "finished" else ("status",)
    if missing := [name for name in needed if run.get(name) is None]:
        raise ValueError(
            f"{path} says {run.get('status', 'nothing')!r} and lacks {', '.join(missing)}, so it is not as its run wrote it. Put the file "
            "back, or delete the run folder to run it again."
        )
    return run


def is_finished(folder: Path) -> bool:
    """Whether the folder holds a whole run."""
    return (Path(folder) / "run.json").is_file() and read_run(folder)["status"] == "finished"


def read_study(folder: Path) -> dict[str, Any]:
    """The content of a study folder's study.json.

    Raises:
        FileNotFoundError: there is none; the message says who writes it.
        ValueError: it is damaged or of another format.
    """
    try:
        return read_json(Path(folder) / "study.json")
    except FileNotFoundError:
        raise FileNotFoundError(f"{folder} holds no study.json. A study writes it at its start, to runs/<its name>.") from None


def record_path(folder: Path, probe: str, step: int) -> Path:
    """Where a probe's record of one step lies.

    Args:
        folder: the run folder.
        probe: the probe's name.
        step: the optimizer step of the measurement.
    """
    return Path(folder) / "records" / probe / f"{step:06d}.json"


def read_records(folder: Path, probe: str) -> dict[int, dict[str, Any]]:
    """All records of a probe by step, ascending; empty when it measured nothing."""
    return {int(path.stem): read_json(path) for path in record_paths(folder, probe)}


def last_record(folder: Path, probe: str) -> dict[str, Any] | None:
    """The probe's record of the last measured step; None when it measured nothing."""
    paths = record_paths(folder, probe)
    return read_json(paths[-1]) if paths else None


def record_paths(folder: Path, probe: str) -> list[Path]:
    """The files of a probe's records, by step."""
    files = (path for path in (Path(folder) / "records" / probe).glob("*.json") if path.stem.isdecimal())
    # By number: from a million steps on, names have more than six digits.
    return sorted(files, key=lambda path: int(path.stem))


def metric_key(probe: str, quantity: str) -> str:
    """The one place where metric names are made: `<probe set>/<quantity>`."""
    return f"{probe}/{quantity}"


@contextmanager
def locked(folder: Path) -> Iterator[int]:
    """Waits until no other process works on the folder, and keeps it until the end of the block.

    The lock is a file beside the folder, because a run folder may not exist yet. Gives its descriptor: a process that inherits it
    keeps the lock until both have ended.
    """
    path = _lock(folder)
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield file.fileno()


def is_locked(folder: Path) -> bool:
    """Whether some process works on the folder now."""
    try:
        with _lock(folder).open() as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except BlockingIOError:
        return True
    return False


def _lock(folder: Path) -> Path:
    return folder.parent / ".locks" / folder.name
