"""What is said of a model, tokenizer or adapter that cannot be read: the file, what is wrong with it, and what to do.

with reading("runs/base/model"):
    AutoTokenizer.from_pretrained("runs/base/model")    # ValueError: runs/base/model/tokenizer.json is damaged (...): fetch or save ...

Libraries raise anything there, from a RecursionError to a bare Exception of Rust, and most name no file.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from safetensors import safe_open

REMEDY = "fetch or save it again, or name another"
PATTERNS = ("*.json", "*.jinja", "*.safetensors", "*.model")
# Errors that are no damage and say all themselves: missing files and packages, no network, no memory.
NOT_DAMAGE = (OSError, ImportError, MemoryError, torch.OutOfMemoryError)


class Unreadable(ValueError):
    """A model, tokenizer or adapter is damaged, or not what its configuration says."""


@contextmanager
def reading(place: str) -> Iterator[None]:
    """Context in which an error of a library names the damaged file.

    Args:
        place: the folder or the Hub's name of what is read.

    Raises:
        Unreadable: something there could not be read. Errors that are worded already, and missing files, go through as they are.
    """
    try:
        yield
    except (Unreadable, FileNotFoundError):
        raise
    except Exception as error:
        damaged = damaged_file(Path(place))
        if damaged is None and isinstance(error, NOT_DAMAGE):
            raise
        lines = [line.strip() for line in str(error).splitlines() if line.strip()] or [""]
        why = f"{place} cannot be read ({type(error).__name__}: {lines[0][:200]})"
        raise Unreadable(f"{damaged or why}: {REMEDY}.") from error


def refuse_adapter(model: str) -> None:
    """Refuses an adapter's folder where a model is asked for.

    Raises:
        Unreadable: the folder holds an adapter.
    """
    if (Path(model) / "adapter_config.json").is_file():
        raise Unreadable(f"{model} holds an adapter (adapter_config.json): set backbone.adapter to it, and backbone.model to its base.")


def damaged_file(folder: Path) -> str | None:
    """The first file of a local folder that is damaged, and how; None where none is, as far as can be seen from outside."""
    for path in sorted(path for pattern in PATTERNS for path in folder.glob(pattern)):
        if why := _damage(path):
            return f"{path} is damaged ({why})"
    return None


def check_file(path: Path) -> None:
    """Refuses a file that is there and damaged, where a library would take it for missing.

    Raises:
        Unreadable: it is damaged.
    """
    if path.exists() and (why := _damage(path)):
        raise Unreadable(f"{path} is damaged ({why}): {REMEDY}.")


def _damage(path: Path) -> str | None:
    if not path.is_file():
        return "it is no file"
    if path.stat().st_size == 0:
        return "it is empty"
    try:
        if path.suffix == ".json":
            content = json.loads(path.read_text(encoding="utf-8"))
            return None if isinstance(content, dict) else f"it holds {content!r:.40} and no JSON object"
        if path.suffix == ".safetensors":
            with safe_open(path, "pt"):
                return None
        if path.suffix == ".jinja":
            path.read_text(encoding="utf-8")
    except RecursionError:
        return "it is nested too deeply"
    except Exception as error:
        return f"{type(error).__name__}: {str(error).splitlines()[0][:120] if str(error) else ''}"
    return None
