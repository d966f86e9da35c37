"""The source code of the classes that a run names, for run keys: an edited objective, stage, probe or plug-in trains again.

own_code(["callbacks.Probe", "unlearn_lightning.objectives.npo.NPO", "torch.optim.AdamW"])      # {"NPO": "9f3a..."}

Code counts by its syntax tree, so that comments, docstrings and layout change nothing. Modules of this package may move: its classes
are known by their names, and where a file imports from this package the names count and the places do not.
"""

from __future__ import annotations

import ast
import functools
import hashlib
import os
import sys
from collections.abc import Iterable, Iterator, Mapping
from importlib import import_module
from importlib.util import resolve_name
from pathlib import Path
from types import ModuleType
from typing import Any

OWN = {"unlearn_lightning", "callbacks"}
# Every run rests on these, so a change of theirs that changes results raises `run_key.RESULTS_VERSION`, as with other shared code.
SHARED = {"CausalLMModule", "Queries", "Unlearning", "StageData", "ExampleSource", "KeptSource", "Probe"}
# Their versions are in run.json, and results of two versions are equal to rounding.
LIBRARIES = {"torch", "torchmetrics", "lightning", "pytorch_lightning", "transformers", "peft", "bitsandbytes"}


def own_code(class_paths: Iterable[str]) -> dict[str, str]:
    """Hash of the source behind each named class and its bases, but for libraries and this package's shared code.

    Args:
        class_paths: such as `my_unlearning.objective.FlooredAscent`.

    Returns:
        For classes of this package: name -> hash of the file that defines it. For others: module -> hash of it, with the modules that
        it imports from its own package or from files that are not installed, such as a helper beside it.
    """
    found: dict[str, set[str]] = {}
    waiting: list[str] = []
    for cls in {cls for path in class_paths for cls in lineage(named_object(path))}:
        if is_own(cls):
            if cls.__name__ not in SHARED and (source := _source(sys.modules[cls.__module__])) is not None:
                found.setdefault(cls.__name__, set()).add(source_hash(source))
        else:
            waiting.append(cls.__module__)
    while waiting:
        name = waiting.pop()
        if name in found or _top(name) in OWN | LIBRARIES | sys.stdlib_module_names:
            continue
        if (source := _source(import_module(name))) is not None:
            found[name] = {source_hash(source)}
            waiting += _imported(name, source)
    return {name: " ".join(sorted(hashes)) for name, hashes in sorted(found.items())}


def named_object(class_path: str) -> Any:
    """What a class path names: a class, or a function in its place."""
    module, _, name = class_path.rpartition(".")
    # Looked up first: a plan of 5,000 runs asks 150,000 times.
    return getattr(sys.modules.get(module) or import_module(module), name)


def lineage(named: Any) -> tuple[Any, ...]:
    """A class and its bases; a function alone."""
    return named.__mro__ if isinstance(named, type) else (named,)


def is_own(named: Any) -> bool:
    """Whether this package defines it."""
    return _top(named.__module__) in OWN


def portable(value: Any) -> Any:
    """A configuration in which classes of this package are known by name alone, so that their modules may move."""
    if isinstance(value, Mapping):
        path = value.get("class_path")
        return {name: class_name(one) if name == "class_path" and path else portable(one) for name, one in value.items()}
    return [portable(one) for one in value] if isinstance(value, list | tuple) else value


def class_name(class_path: str) -> str:
    """The name of a class of this package; the path of any other."""
    named = named_object(class_path)
    return named.__name__ if is_own(named) else class_path


@functools.lru_cache(maxsize=256)
def source_hash(source: str | bytes) -> str:
    """SHA-256 of the code's syntax tree without docstrings; imports from this package count by name and without order or place."""
    tree, imported = ast.parse(source), []
    for node in ast.walk(tree):
        body = getattr(node, "body", None)
        if not isinstance(body, list):
            continue
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) and ast.get_docstring(node) is not None:
            del body[0]
        imported += [(alias.name, alias.asname) for one in body if _from_own(one) for alias in one.names]
        node.body = [one for one in body if not _from_own(one)]  # type: ignore[attr-defined]
    return hashlib.sha256(repr([*sorted(map(str, imported)), *_tree(tree)]).encode()).hexdigest()


def _from_own(node: Any) -> bool:
    return isinstance(node, ast.ImportFrom) and not node.level and _top(node.module or "") in OWN


def _tree(node: Any) -> Iterator[str]:
    # Python's own dump differs between its versions in the fields that are empty.
    if isinstance(node, ast.AST):
        yield type(node).__name__
        for name, value in ast.iter_fields(node):
            if value not in (None, []) or isinstance(node, ast.Constant):
                yield f".{name}"
                yield from _tree(value)
    elif isinstance(node, list):
        yield f"[{len(node)}]"
        for one in node:
            yield from _tree(one)
    else:
        yield repr(node)


def _top(name: str) -> str:
    return name.partition(".")[0]


def _source(module: ModuleType) -> bytes | None:
    file = getattr(module, "__file__", None)
    return _content(file, os.stat(file).st_mtime_ns, os.stat(file).st_size) if file and file.endswith(".py") else None


@functools.lru_cache(maxsize=256)
def _content(file: str, mtime_ns: int, size: int) -> bytes:
    """A file as it is at that time: a study's runs name the same classes."""
    return Path(file).read_bytes()


def _imported(name: str, source: bytes) -> list[str]:
    """The modules of the same package, and those that are not installed, that are imported anywhere in a module."""
    module, names = sys.modules[name], set()
    package = name if hasattr(module, "__path__") else name.rpartition(".")[0]
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            origin = resolve_name("." * node.level + (node.module or ""), package) if node.level else node.module or ""
            names |= {origin, *(f"{origin}.{alias.name}" for alias in node.names)}
    return sorted(found for found in names if found in sys.modules and (_top(found) == _top(name) or _not_installed(found)))


def _not_installed(name: str) -> bool:
    file = getattr(sys.modules[name], "__file__", None)
    return file is not None and not {"site-packages", "dist-packages"} & set(Path(file).parts)
