"""Configurations that differ in plain numbers alone: one of them is worked out by jsonargparse, the others by putting in their numbers.

form, numbers = without_numbers(settings)           # {"model.beta": 0.5, "model.optimizer.lr": 1e-4} are the numbers
with_numbers(resolved, {"model.beta": 0.2})         # shares all that is the same with `resolved`

A grid of learning rates and betas has one form. jsonargparse takes a third of a second for each of its points.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

# What jsonargparse puts between the name of a setting and the settings of the class that it names.
BELOW = "init_args"
# Stands in a form where a number stood; no setting is this text.
NUMBER = "\0number"


def without_numbers(model: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, float]]:
    """A model's settings with its fractions taken out, and these by their names; those in lists stay where they are."""
    numbers: dict[str, float] = {}

    def form(settings: Mapping[str, Any], where: str) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for name, value in settings.items():
            place = where if name == BELOW else f"{where}.{name}"
            if isinstance(value, Mapping):
                found[name] = form(value, place)
            elif type(value) is float and math.isfinite(value):
                numbers[place], found[name] = value, NUMBER
            else:
                found[name] = value
        return found

    return form(model, "model"), numbers


def taken_as_they_are(resolved: Mapping[str, Any], numbers: Mapping[str, float], plain: set[str]) -> set[str]:
    """The names of the numbers that a whole configuration has where they were given, and as they were given.

    Args:
        resolved: the configuration that was worked out with these numbers.
        numbers: as `without_numbers` gives them.
        plain: names of settings whose type takes any fraction (`early_checks.plain_numbers`).
    """
    there = {where: settings[name] for where, settings, name in _places(resolved["model"], "model")}
    return {name for name, value in numbers.items() if name in plain and type(there.get(name)) is float and there[name] == value}


def with_numbers(resolved: Mapping[str, Any], numbers: Mapping[str, float]) -> dict[str, Any]:
    """The configuration with other numbers; what does not change is shared and not copied."""

    def changed(settings: Mapping[str, Any], where: str) -> Mapping[str, Any]:
        found = {}
        for name, value in settings.items():
            place = where if name == BELOW else f"{where}.{name}"
            if isinstance(value, Mapping) and any(other.startswith(f"{place}.") for other in numbers):
                found[name] = changed(value, place)
            else:
                found[name] = numbers.get(place, value)
        return found

    return {**resolved, "model": changed(resolved["model"], "model")}


def put_in(parsed: Any, names: Sequence[str], value: float) -> None:
    """Sets a number in a class's settings as the parser holds them, in place; `names` lead to it."""
    first, *rest = names
    settings = parsed.get(BELOW, parsed)
    if rest:
        put_in(settings[first], rest, value)
    else:
        settings[first] = value


def _places(settings: Mapping[str, Any], where: str) -> Iterator[tuple[str, Mapping[str, Any], str]]:
    for name, value in settings.items():
        place = where if name == BELOW else f"{where}.{name}"
        if isinstance(value, Mapping):
            yield from _places(value, place)
        else:
            yield place, settings, name
