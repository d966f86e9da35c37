"""A run's whole configuration, worked out without building anything: what a study plans, compares and hashes.

resolver = Resolver()
resolver.resolve({"model": {...}, "data": {...}})       # every default filled in, as config.yaml would have it
"""

from __future__ import annotations

import copy
import json
import os
from collections.abc import Mapping
from typing import Any

from unlearn_lightning.cli.early_checks import check_optimizer, check_settings
from unlearn_lightning.cli.lightning_cli import run
from unlearn_lightning.cli.unlearn_cli import UnlearnCLI, fill_seeds


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


# Whole configurations that were worked out in this process, by what decides them: shape, environment variables and folder.
_SHAPES: dict[str, dict[str, Any]] = {}


class Resolver:
    """Fills in the defaults of `unlearn fit` configurations, once per shape: jsonargparse takes most of a second for each.

    A study's configurations differ mostly in seeds and in where they start from, which resolve to themselves.
    """

    def __init__(self) -> None:
        self._cli: UnlearnCLI | None = None

    def resolve(self, config: Mapping[str, Any]) -> dict[str, Any]:
        """Returns the whole configuration, as config.yaml would have it."""
        shape = copy.deepcopy(dict(config))
        backbone = shape["model"]["init_args"]["backbone"]
        places = {name: backbone.pop(name) for name in ("model", "adapter") if backbone.get(name) is not None}
        seed = shape.pop("seed_everything", 0)
        # The backbone is complete only where a place is named, so that a stand-in is named here.
        backbone["model"] = "." if "model" in places else None
        variables = {name: value for name, value in os.environ.items() if name.startswith("UNLEARN")}
        text = json.dumps([shape, variables, os.getcwd()], sort_keys=True)
        if text not in _SHAPES:
            _SHAPES[text] = self._parse(shape)
        resolved = copy.deepcopy(_SHAPES[text])
        resolved["seed_everything"] = seed
        resolved["model"]["init_args"]["backbone"].update(places)
        fill_seeds(resolved, seed)
        return resolved

    def _parse(self, shape: dict[str, Any]) -> dict[str, Any]:
        args: dict[str, Any] = {"subcommand": "fit", "fit": shape}
        if self._cli is None:
            self._cli = run(args, cli=ConfigOnly)
        else:
            self._cli.parse_arguments(self._cli.parser, args)
            self._cli.known_config = None
        resolved = self._cli.resolved()
        self._try(resolved)
        return resolved

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
        check_optimizer(self._cli.parser.instantiate_classes(config).fit.model)
