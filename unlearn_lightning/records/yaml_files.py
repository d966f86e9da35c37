"""YAML of others, read within limits: no file of a few lines may grow to gigabytes or end in a traceback.

content = read_yaml(Path("configs/studies/demo.yaml"))

An alias (`*name`) stands for all that its anchor (`&name`) holds, so that ten lines of ten aliases stand for ten billion values.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

# Values that a file may stand for with its aliases written out, and levels of nesting. The largest shipped file has about 500 and 12.
MOST_VALUES, DEEPEST = 200_000, 60
# A text with neither an alias nor many openings needs no count.
_SHORT, _OPENING = 2_000, ("[", "{", "- ", "? ", "-\t")

_LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


class TooLarge(yaml.YAMLError):
    """A YAML text stands for more than is read."""


def read_yaml(path: Path) -> Any:
    """Reads a YAML file.

    Raises:
        OSError: it cannot be read.
        ValueError: it is not YAML, or stands for more values or levels than is read; the message names the file.
    """
    try:
        return load_yaml(path.read_text(encoding="utf-8"))
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is no text in UTF-8 ({error.reason} at byte {error.start:,}): was it cut or overwritten?") from None
    except yaml.YAMLError as error:
        raise ValueError(f"{path} is not YAML that can be read: {' '.join(str(error).split())}. Mend it, or write it anew.") from None


def read_mapping(path: Path) -> dict[str, Any]:
    """Reads a YAML file of settings.

    Raises:
        OSError: it cannot be read.
        ValueError: it is not YAML that can be read, or no mapping; the message names the file.
    """
    content = read_yaml(path)
    if not isinstance(content, dict):
        kind = "nothing" if content is None else f"{type(content).__name__} ({content!r:.40})"
        raise ValueError(f"{path}: expected a mapping of settings (`name: value`), got {kind}.")
    return content


def load_yaml(text: str) -> Any:
    """Reads a YAML text.

    Raises:
        yaml.YAMLError: it is not YAML, or, as TooLarge, stands for too much.
    """
    check_limits(text)
    try:
        return yaml.load(text, Loader=_LOADER)
    except (RecursionError, ValueError, TypeError, AttributeError, OverflowError) as error:
        # A date such as 2024-99-99, a key that is a mapping, a number of a million digits.
        raise yaml.YAMLError(f"{type(error).__name__}: {error}") from None


def check_limits(text: str) -> None:
    """Counts what a YAML text stands for, before it is built.

    Raises:
        TooLarge: it is more than is read.
        yaml.YAMLError: it is not YAML.
    """
    if len(text) < _SHORT and "*" not in text and max(map(text.count, _OPENING)) < DEEPEST:
        return
    # What is open: how many values and levels each collection has so far, and its anchor. What is closed: those of each anchor.
    opened: list[tuple[list[int], str | None]] = [([0, 0], None)]
    closed: dict[str, list[int]] = {}
    for event in yaml.parse(text, Loader=_LOADER):
        if isinstance(event, yaml.CollectionStartEvent):
            opened.append(([1, 1], event.anchor))
            if len(opened) > DEEPEST:
                raise TooLarge(f"its values are nested more than {DEEPEST} levels deep")
            continue
        if isinstance(event, yaml.AliasEvent):
            if any(anchor == event.anchor for _, anchor in opened):
                raise TooLarge("an alias (*name) stands within what it stands for, so that it has no end")
            found, name = closed.get(str(event.anchor), [1, 0]), None
        elif isinstance(event, yaml.ScalarEvent):
            found, name = [1, 0], event.anchor
        elif isinstance(event, yaml.CollectionEndEvent):
            found, name = opened.pop()
        else:
            continue
        if name is not None:
            closed[name] = found
        above = opened[-1][0]
        above[:] = above[0] + found[0], max(above[1], found[1] + 1)
    (count, depth), _ = opened[0]
    if count > MOST_VALUES or depth > DEEPEST:
        said = f"{count:,}" if count < 10**12 else f"about 10^{len(str(count)) - 1}"
        raise TooLarge(
            f"it stands for {said} values in {depth} levels with its aliases (*name) written out; at most {MOST_VALUES:,} values and "
            f"{DEEPEST} levels are read"
        )
