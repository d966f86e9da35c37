"""The source code of classes that are not this package's own, for run keys: an edited plug-in trains again.

own_code(["my_unlearning.objective.FlooredAscent", "torch.optim.AdamW"])     # {"my_unlearning.objective": "9f3a..."}
"""

from __future__ import annotations

import ast
import hashlib
import sys
from collections.abc import Iterable
from importlib import import_module
from importlib.util import resolve_name
from pathlib import Path
from types import ModuleType

# This package's changes are told by `run_key.RESULTS_VERSION`; those of libraries by the versions in run.json.
NOT_OWN = {
    "unlearn_lightning",
    "callbacks",
    "torch",
    "torchmetrics",
    "lightning",
    "pytorch_lightning",
    "transformers",
    "peft",
    "bitsandbytes",
}


def own_code(class_paths: Iterable[str]) -> dict[str, str]:
    """Hash of the source of every module that defines one of the classes, and of what it imports from its own package.

    Args:
        class_paths: such as `my_unlearning.objective.FlooredAscent`; those of this package and of the libraries below it are left out.

    Returns:
        Module name -> SHA-256 of its source.
    """
    found: dict[str, str] = {}
    waiting = sorted({path.rpartition(".")[0] for path in class_paths} - {""})
    while waiting:
        name = waiting.pop()
        if name in found or _top(name) in NOT_OWN:
            continue
        source = _source(import_module(name))
        if source is not None:
            found[name] = hashlib.sha256(source).hexdigest()
            waiting += _imported(name, source)
    return found


def _top(name: str) -> str:
    return name.partition(".")[0]


def _source(module: ModuleType) -> bytes | None:
    file = getattr(module, "__file__", None)
    return Path(file).read_bytes() if file and file.endswith(".py") else None


def _imported(name: str, source: bytes) -> list[str]:
    """The modules of the same package that are imported anywhere in a module."""
    module, names = sys.modules[name], set()
    package = name if hasattr(module, "__path__") else name.rpartition(".")[0]
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            origin = resolve_name("." * node.level + (node.module or ""), package) if node.level else node.module or ""
            names |= {origin, *(f"{origin}.{alias.name}" for alias in node.names)}
    return sorted(found for found in names if _top(found) == _top(name) and found in sys.modules)
