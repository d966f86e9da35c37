"""Which callbacks of the configuration files are no longer there, because a later file or flag has a list of its own.

unlearn fit -c configs/objectives/npo.yaml --trainer.callbacks GSM8KAccuracy
trainer.callbacks: GSM8KAccuracy in place of ForgetLikelihood; `--trainer.callbacks+` would add to them.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml


def replaced_callbacks(words: Sequence[str], callbacks: Any) -> str | None:
    """Returns a line that names the callbacks that were replaced, or None where every callback of the files is still there.

    Args:
        words: the command's words, with its files in `--config FILE` pairs.
        callbacks: what `trainer.callbacks` is in the end: one, a list, or null.
    """
    before: Counter[str] = Counter()
    for flag, name in itertools.pairwise(words):
        if flag == "--config" and Path(name).is_file():
            before |= Counter(_names(_trainer(Path(name)).get("callbacks")))
    after = _names(callbacks)
    gone = sorted((before - Counter(after)).elements())
    if not gone:
        return None
    return f"trainer.callbacks: {', '.join(after) or 'none'} in place of {', '.join(gone)}; `--trainer.callbacks+` would add to them."


def _trainer(file: Path) -> Mapping[str, Any]:
    content = yaml.safe_load(file.read_text(encoding="utf-8"))
    trainer = content.get("trainer") if isinstance(content, Mapping) else None
    return trainer if isinstance(trainer, Mapping) else {}


def _names(callbacks: Any) -> list[str]:
    """Returns the short class names of a callback, of a list of them, or of null."""
    listed = callbacks if isinstance(callbacks, list) else [callbacks] if callbacks else []
    paths = [one if isinstance(one, str) else dict(one).get("class_path", "") for one in listed]
    return [str(path).rpartition(".")[2] for path in paths if path]
