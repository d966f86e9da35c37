"""`--against RETRAINED`: the distance of what is measured to a retrained model, whose predictions are computed first where there are none.

    config, names = with_retrained(config, "runs/retrained")        # or a model folder, or the Hub's owner/name

Both models are measured by the same probes on the same texts, one after the other.
"""

from __future__ import annotations

import gc
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from lightning.pytorch.utilities.rank_zero import rank_zero_info

from unlearn_lightning.cli.lightning_cli import run
from unlearn_lightning.cli.measuring import measure, trained_config
from unlearn_lightning.cli.unlearn_cli import UnlearnCLI
from unlearn_lightning.runs.content import RESULTS
from unlearn_lightning.runs.measured import known_probes, probe_keys, probes_of
from unlearn_lightning.runs.source_hash import named_object


def distances_of(config: Mapping[str, Any]) -> dict[str, Any]:
    """The probes of a configuration that compare with a retrained model, by name."""
    return {name: probe for name, probe in probes_of(config).items() if getattr(named_object(probe["class_path"]), "compares", "")}


def with_retrained(config: Mapping[str, Any], retrained: str) -> tuple[dict[str, Any], list[str]]:
    """The configuration with its distances taken to the retrained model, and the names of the probes that give them.

    Args:
        config: the whole configuration of what is measured; it has a probe that compares, such as PathDivergence.
        retrained: a run folder, a model or adapter folder, or the Hub's owner/name.

    Raises:
        FileNotFoundError: there is no such model.
        ChangedProbe: the run measured a probe of that name with other settings.
    """
    probes = distances_of(config)
    folder = run_of(Path(retrained))
    if folder is None:
        folder = _measured_model(config, retrained)
    elif missing := _lacks(folder, config, probes):
        theirs = trained_config(folder)
        wanted = [_explicit(config, probes[name]) for name in missing]
        kept = [probe for name, probe in probes_of(theirs).items() if name not in missing]
        rank_zero_info(f"{folder} has no predictions of {', '.join(missing)}: they are computed first.")
        measure(folder, {**theirs, "trainer": {**theirs["trainer"], "callbacks": [*kept, *wanted]}}, missing)
    own = [{**c, "init_args": {**c["init_args"], "retrained": str(folder)}} if c in probes.values() else c for c in _callbacks(config)]
    return {**config, "trainer": {**config["trainer"], "callbacks": own}}, list(probes)


def run_of(place: Path) -> Path | None:
    """The run folder that a place is, or whose result it is; None where it is a plain model."""
    near = [place, *([place.parent] if place.name in RESULTS else [])]
    return next((folder.absolute() for folder in near if (folder / "run.json").is_file()), None)


def _lacks(folder: Path, config: Mapping[str, Any], probes: Mapping[str, Any]) -> list[str]:
    known, keys = known_probes(folder), probe_keys(config)
    recorded = [name for name, probe in probes.items() if named_object(probe["class_path"]).compares == "records"]
    return [name for name in recorded if name not in known or known[name]["key"] != keys[name] or not known[name]["steps"]]


def _callbacks(config: Mapping[str, Any]) -> Iterator[Any]:
    found = config["trainer"]["callbacks"]
    yield from found if isinstance(found, list) else [found] if found else []


def _explicit(config: Mapping[str, Any], probe: Mapping[str, Any]) -> dict[str, Any]:
    """The probe with its data named, which another run would take for its own."""
    settings = dict(probe["init_args"])
    retain = config["model"]["init_args"].get("retain")
    if settings.get("data") is None:
        settings["data"] = retain["data"] if retain and settings.get("of") == "retain" else config["data"]
    alone: dict[str, Any] = {"of": "train", "retrained": None, "others": {}}
    return {**probe, "init_args": {**settings, **{name: value for name, value in alone.items() if name in settings}}}


class _Once(UnlearnCLI):
    """Measures a model unless the same was measured before."""

    keeps_finished = True


def _measured_model(config: Mapping[str, Any], place: str) -> Path:
    """The run folder of a plain model's measurements, made now where there is none yet."""
    backbone = config["model"]["init_args"]["backbone"]
    adapter = Path(place) / "adapter_config.json"
    if adapter.is_file():
        base = backbone["model"] if backbone["adapter"] else _base_of(adapter)
        named = {"model": base, "adapter": place, "lora": backbone["lora"] or {}}
    else:
        named = {"model": place, "adapter": None, "revision": None, "tokenizer": None}
    model = {**config["model"], "init_args": {**config["model"]["init_args"], "backbone": {**backbone, "scratch": None, **named}}}
    settings = {name: value for name, value in config.items() if name != "config"} | {"model": model, "run_folder": None}
    rank_zero_info(f"{place}: the predictions of the retrained model are computed first.")
    folder = run({"subcommand": "validate", "validate": settings}, cli=_Once).run_folder
    gc.collect()
    return folder


def _base_of(file: Path) -> str | None:
    """The base model that an adapter of PEFT says it was trained on."""
    found: str | None = json.loads(file.read_text(encoding="utf-8")).get("base_model_name_or_path")
    return found
