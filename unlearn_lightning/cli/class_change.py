"""What becomes of the settings of a class when a later file or flag names another one in its place: kept or dropped, and said.

    unlearn fit -c configs/objectives/npo.yaml --model SimNPO
    SimNPO in place of NPO: taken over: optimizer, lr_scheduler; left out, so that SimNPO's own defaults count: beta 0.5.

jsonargparse keeps every setting whose name the new class happens to have and drops the others, both in silence; so SimNPO would run with
NPO's beta. Here a setting is taken over where both classes have it from a class above both of them, since only then it means the same.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from jsonargparse import Namespace
from lightning.pytorch import Callback

from unlearn_lightning.cli.parameters import parameters
from unlearn_lightning.cli.parser_internals import class_at, nested_key, on_class_change

# Values longer than this are named without what they hold.
LONGEST = 40


@contextmanager
def told_class_changes() -> Iterator[list[str]]:
    """Applies the rule while a command is parsed; yields the lines on what changed, each once, in their order."""
    lines: list[str] = []
    told: set[str] = set()

    def change(parser_or_action: Any, before: Any, after: Any) -> None:
        # A settings class such as Lora has a class_path while it is parsed only.
        if before and before.get("init_args") and before.get("class_path") and before["class_path"] != after["class_path"]:
            line = _carry_over(before, after)
            # jsonargparse comes by several times, in the end with the settings of the default class.
            if line and after["class_path"] not in told:
                told.add(after["class_path"])
                lines.append(line)

    with on_class_change(change):
        yield lines


def shared_settings(old: Any, new: Any) -> set[str]:
    """Names of the settings that two classes have from a class above both, or from one of them that the other extends.

    Callbacks stand in lists, where what has the same place is not the same probe: they share nothing.
    """
    if not (inspect.isclass(old) and inspect.isclass(new)) or issubclass(new, Callback):
        return set()
    above: Any = next(base for base in new.__mro__ if issubclass(old, base))
    if above is object:
        return set()
    return set(parameters(above)) & set(parameters(new))


def _carry_over(before: Any, after: Any) -> str | None:
    """Takes what is not shared out of the settings of before; returns the line on it, or None where there is nothing to say."""
    old, new = (class_at(spec["class_path"]) for spec in (before, after))
    settings, given = before["init_args"], _names(after.get("init_args"))
    shared, own, fresh = shared_settings(old, new), parameters(old), parameters(new)
    # Before a class is named its settings are those of the base that stands in for it.
    extends = inspect.isclass(old) and inspect.isclass(new) and issubclass(new, old)
    taken: list[str] = []
    left: list[str] = []
    for name in _names(settings):
        value = settings[name]
        # What is set anew, or keeps the value that it would have anyway, is no change.
        usual = value is None or (name in own and own[name].default == value and fresh.get(name, own[name]).default == value)
        if name not in shared:
            settings.pop(name)
        if name not in given and not usual and not (name in shared and extends):
            (taken if name in shared else left).append(_named(name, value))
    if not taken and not left:
        return None
    parts = [f"taken over: {', '.join(taken)}"] * bool(taken)
    parts += [f"left out, so that {new.__name__}'s own defaults count: {', '.join(left)}"] * bool(left)
    return f"{new.__name__} in place of {old.__name__}: {'; '.join(parts)}."


def _names(settings: Any) -> list[str]:
    """Returns the settings of a class in their order; one that is given by a flag alone has its key before its value."""
    if key := nested_key(settings):
        return [key.partition(".")[0]]
    return list(vars(settings) if isinstance(settings, Namespace) else settings or ())


def _named(name: str, value: Any) -> str:
    text = str(value)
    return name if isinstance(value, (Namespace, dict)) or len(text) > LONGEST else f"{name} {text}"
