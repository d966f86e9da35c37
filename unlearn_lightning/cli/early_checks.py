"""What is looked at before a run loads or logs anything: null where nothing may be null, ranges, places, and optimizers that refuse.

check_settings(config); check_found(config); check_optimizer(model)      # one line on the first thing that is wrong
"""

from __future__ import annotations

import dataclasses
import inspect
import re
import types
import typing
from collections.abc import Iterator, Mapping
from importlib import import_module
from typing import Any

import lightning.pytorch as pl
import torch

from unlearn_lightning.cli.parameters import parameters
from unlearn_lightning.cli.trainer_parts import as_list
from unlearn_lightning.models.places import SETTINGS, check_places
from unlearn_lightning.runs.content import refuse_changed_place

# A schedule asks for the number of steps, which is known only when the data has been read; a setting that it refuses for this
# number is wrong for every number.
MANY_STEPS = 10**6
# Settings of the trainer whose range Lightning does not look at, or not in words that say what to do, and the least of each.
LEAST = {
    "gradient_clip_val": 0, "log_every_n_steps": 0, "accumulate_grad_batches": 1, "check_val_every_n_epoch": 1, "num_nodes": 1,
    "max_steps": -1, "max_epochs": -1, "min_steps": 0, "min_epochs": 0, "limit_train_batches": 0, "limit_val_batches": 0,
    "limit_test_batches": 0, "overfit_batches": 0, "val_check_interval": 0,
}  # fmt: skip
# A number, or the devices' own numbers as a list.
DEVICES = re.compile(r"auto|-1|[1-9]\d*|[\[(].+[\])]|\d+\s*,[\d\s,]*")


def check_settings(config: Mapping[str, Any]) -> None:
    """Looks through a whole configuration, without the places that it names.

    Raises:
        ValueError: a setting is null that must not be, or out of range; the message has its name.
    """
    for where, owner, settings in _owners(config):
        for name, hint in _hints(owner).items():
            if name in settings and settings[name] is None and not _admits_none(owner, name, hint):
                raise ValueError(f"{where}.{name}: expected {_words(hint)}, got null. Leave it out for its usual value.")
            if _is_a_list_in_words(settings.get(name), hint):
                raise ValueError(f"{where}.{name}: expected a text or a list of texts, got the list {settings[name]}, not all of texts.")
    for name, least in LEAST.items():
        value = config["trainer"].get(name)
        # An interval may be a time, too.
        if isinstance(value, int | float) and not value >= least:
            raise ValueError(f"trainer.{name} must be at least {least}, got {value}.")
    if not DEVICES.fullmatch(str(config["trainer"]["devices"]).strip()):
        raise ValueError(
            f"trainer.devices is how many devices a run takes, at least 1, auto, or -1 for all; got {config['trainer']['devices']}. "
            "`--trainer.accelerator cpu` leaves the GPUs alone."
        )
    if config["checkpoint_every_n_steps"] < 0:
        raise ValueError(f"checkpoint_every_n_steps is a number of steps, or 0 for none; got {config['checkpoint_every_n_steps']}.")


def plain_numbers(config: Mapping[str, Any]) -> set[str]:
    """The names of settings, such as `model.beta`, whose type takes any fraction and no whole number, text or restriction beside it."""
    found = set()
    for where, owner, settings in _owners(config):
        for name, hint in _hints(owner).items():
            members = set(_members(hint))
            if name in settings and float in members and not members & {int, bool, str, complex, Any, object}:
                found.add(f"{where}.{name}")
    return found


def check_found(config: Mapping[str, Any]) -> None:
    """Looks for the model, tokenizer and adapters that a configuration names.

    Raises:
        FileNotFoundError: one is neither a folder nor on the Hub.
        ValueError: one is the result of an earlier run, and holds something else than that run made.
    """
    backbone = config["model"]["init_args"]["backbone"]
    check_places(backbone)
    for setting in SETTINGS:
        for place in as_list(backbone.get(setting)):
            refuse_changed_place(place)


def check_optimizer(model: Any) -> None:
    """Makes the optimizer and the schedule once, for a single weight, because torch looks at their settings only then.

    Raises:
        ValueError: they refuse their settings.
    """
    try:
        optimizer = model.make_optimizer([torch.nn.Parameter(torch.zeros(1))])
    except (ValueError, TypeError) as error:
        raise ValueError(f"model.optimizer: {error}") from error
    try:
        model.make_scheduler(optimizer, MANY_STEPS)
    except (ValueError, TypeError, ZeroDivisionError) as error:
        raise ValueError(f"model.lr_scheduler: {error}") from error


def _owners(config: Mapping[str, Any]) -> Iterator[tuple[str, Any, Mapping[str, Any]]]:
    """Yields every class that a configuration sets up, with its place and its settings."""
    yield "trainer", pl.Trainer, config["trainer"]
    yield from _below("", {name: config[name] for name in ("model", "data", "trainer")})


def _below(where: str, settings: Any, owner: Any = None) -> Iterator[tuple[str, Any, Mapping[str, Any]]]:
    if isinstance(settings, (list, tuple)):
        for one in settings:
            yield from _below(where, one)
    if not isinstance(settings, Mapping):
        return
    if isinstance(settings.get("class_path"), str):
        owner, settings = _imported(settings["class_path"]), settings.get("init_args") or {}
    if owner is not None:
        yield where, owner, settings
    hints = {} if owner is None else _hints(owner)
    for name, value in settings.items():
        yield from _below(f"{where}.{name}" if where else name, value, _dataclass(hints.get(name)))


def _imported(class_path: str) -> Any:
    module, _, name = class_path.rpartition(".")
    return getattr(import_module(module), name)


def _hints(owner: Any) -> dict[str, Any]:
    # Names that a library imports for type checkers alone cannot be looked up, and stay texts.
    hints = {name: parameter.annotation for name, parameter in parameters(owner).items()}
    return {name: hint for name, hint in hints.items() if hint is not inspect.Parameter.empty and not isinstance(hint, str)}


def _members(hint: Any) -> tuple[Any, ...]:
    return typing.get_args(hint) if typing.get_origin(hint) in (typing.Union, types.UnionType) else (hint,)


def _admits_none(owner: Any, name: str, hint: Any) -> bool:
    parameter = parameters(owner).get(name)
    return parameter is None or parameter.default is None or bool({type(None), Any, object} & set(_members(hint)))


def _is_a_list_in_words(value: Any, hint: Any) -> bool:
    """Says whether a list came as a text: where texts or one may come, jsonargparse takes a list with another member for one text."""
    texts = any(typing.get_origin(member) in (list, tuple) and typing.get_args(member)[0] is str for member in _members(hint))
    return str in _members(hint) and texts and isinstance(value, str) and value.startswith("[") and value.endswith("]")


def _dataclass(hint: Any) -> Any:
    return next((member for member in _members(hint) if dataclasses.is_dataclass(member)), None)


def _words(hint: Any) -> str:
    names = {"int": "a whole number", "float": "a number", "bool": "true or false", "str": "text"}
    return " or ".join(names.get(getattr(member, "__name__", ""), str(member)) for member in _members(hint))
