"""A run's whole configuration, worked out without building anything: what a study plans, compares and hashes.

resolver = Resolver()
resolver.resolve({"model": {...}, "data": {...}})       # every default filled in, as config.yaml would have it
"""

from __future__ import annotations

import copy
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from jsonargparse import Namespace

from unlearn_lightning.cli.early_checks import check_optimizer, check_settings, plain_numbers
from unlearn_lightning.cli.lightning_cli import run
from unlearn_lightning.cli.unlearn_cli import UnlearnCLI, fill_seeds
from unlearn_lightning.cli.variants import put_in, taken_as_they_are, with_numbers, without_numbers


class ConfigOnly(UnlearnCLI):
    """Parses and completes a configuration, and builds nothing."""

    def _set_seed(self) -> None:
        pass

    def before_instantiate_classes(self) -> None:
        """Leaves out what a run does before its classes are made."""
        pass

    def instantiate_classes(self) -> None:
        """Makes no class, because only the configuration is asked for."""
        pass

    def after_instantiate_classes(self) -> None:
        """Leaves out what a run does with its classes."""
        pass

    def _run_subcommand(self, subcommand: str) -> None:
        pass


@dataclass(frozen=True)
class _Known:
    """A form whose configuration was worked out in this process.

    Attributes:
        numbers: those that it was worked out with.
        free: names of the numbers that may be others, because they go where they are given, as they are given.
        resolved: the whole configuration.
        parsed: the same, as the parser makes classes of it.
        parser: which does.
    """

    numbers: dict[str, float]
    free: set[str]
    resolved: dict[str, Any]
    parsed: Any
    parser: Any


# Whole configurations that were worked out in this process, by what decides them: settings, environment variables and folder.
_RESOLVED: dict[str, dict[str, Any]] = {}
# Those that jsonargparse worked out, by the same without its numbers.
_FORMS: dict[str, _Known] = {}


class Resolver:
    """Fills in the defaults of `unlearn fit` configurations, once each.

    A study's configurations differ mostly in seeds and in where they start from, which resolve to themselves, and in a grid's numbers,
    which do so where their type takes any number. jsonargparse takes a third of a second for each configuration; it is asked once for
    all that differ in nothing else.

    Attributes:
        parsed: how many configurations jsonargparse worked out for this object.
        tried: how many models were made of configurations, to see whether they take their settings.
    """

    def __init__(self) -> None:
        self._cli: UnlearnCLI | None = None
        self.parsed = self.tried = 0

    def resolve(self, config: Mapping[str, Any]) -> dict[str, Any]:
        """Returns the whole configuration, as config.yaml would have it; others share its parts, so that it is not changed."""
        model = config["model"]
        backbone = dict(model["init_args"]["backbone"])
        places = {name: backbone.pop(name) for name in ("model", "adapter") if backbone.get(name) is not None}
        # The backbone is complete only where a place is named, so that a stand-in is named here.
        backbone["model"] = "." if "model" in places else None
        shape = {**config, "model": {**model, "init_args": {**model["init_args"], "backbone": backbone}}}
        seed = shape.pop("seed_everything", 0)
        variables = {name: value for name, value in os.environ.items() if name.startswith("UNLEARN")}
        text = json.dumps([shape, variables, os.getcwd()], sort_keys=True)
        if text not in _RESOLVED:
            _RESOLVED[text] = self._resolved(shape, variables)
        return _with_own(_RESOLVED[text], seed, places)

    def _resolved(self, shape: dict[str, Any], variables: dict[str, str]) -> dict[str, Any]:
        model, numbers = without_numbers(shape["model"])
        form = json.dumps([{**shape, "model": model}, variables, os.getcwd()], sort_keys=True)
        if (known := _FORMS.get(form)) is not None:
            others = {name: value for name, value in numbers.items() if value != known.numbers[name]}
            if others.keys() <= known.free:
                return self._variant(known, others)
        resolved, parsed = self._parse(copy.deepcopy(shape))
        assert self._cli is not None
        _FORMS.setdefault(
            form, _Known(numbers, taken_as_they_are(resolved, numbers, plain_numbers(resolved)), resolved, parsed, self._cli.parser)
        )
        return resolved

    def _variant(self, known: _Known, others: dict[str, float]) -> dict[str, Any]:
        resolved = with_numbers(known.resolved, others)
        check_settings(resolved)
        model = known.parsed.clone()
        for name, value in others.items():
            put_in(model, name.split(".")[1:], value)
        self._make(known.parser, Namespace(fit=Namespace(model=model)))
        return resolved

    def _parse(self, shape: dict[str, Any]) -> tuple[dict[str, Any], Any]:
        args: dict[str, Any] = {"subcommand": "fit", "fit": shape}
        if self._cli is None:
            self._cli = run(args, cli=ConfigOnly)
        else:
            self._cli.parse_arguments(self._cli.parser, args)
            self._cli.known_config = None
        resolved = self._cli.resolved()
        self.parsed += 1
        self._try(resolved)
        return resolved, self._cli.config.fit.model

    def _try(self, resolved: dict[str, Any]) -> None:
        """Makes model, data and probes once, without weights, so that a study's plan refuses what a run hours later would refuse.

        Raises:
            ValueError: a setting is out of range, or null where it must not be.
        """
        assert self._cli is not None
        check_settings(resolved)
        config = self._cli.config.clone()
        # These start connections and processes, or look for devices.
        for name, usual in {"strategy": "auto", "plugins": None, "logger": False, "profiler": None}.items():
            config.fit.trainer[name] = usual
        self._make(self._cli.parser, config)

    def _make(self, parser: Any, config: Namespace) -> None:
        self.tried += 1
        check_optimizer(parser.instantiate_classes(config).fit.model)


def _with_own(resolved: dict[str, Any], seed: Any, places: dict[str, Any]) -> dict[str, Any]:
    """The configuration with a run's own seed and places; what does not depend on them is shared."""
    model, data = resolved["model"], resolved["data"]
    settings = {**model["init_args"], "backbone": {**model["init_args"]["backbone"], **places}}
    if retain := settings.get("retain"):
        of_retain = {**retain["data"], "init_args": dict(retain["data"]["init_args"])}
        settings["retain"] = {**retain, "data": of_retain}
    own = {
        **resolved, "seed_everything": seed, "model": {**model, "init_args": settings},
        "data": {**data, "init_args": dict(data["init_args"])},
    }  # fmt: skip
    fill_seeds(own, seed)
    return own
