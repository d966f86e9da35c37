"""What a run holds out, and what its probes measure, where nobody says it: all of a forget set is unlearned.

fill_splits(config)         # held_out_examples and split, so that the written configuration says all
check_sources(config)       # refuses data that needs a source and has none, by the name of its setting
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from unlearn_lightning.cli.parser_internals import class_at
from unlearn_lightning.cli.trainer_parts import as_list
from unlearn_lightning.data import StageData
from unlearn_lightning.data.example_source import HELD_OUT, ExampleSource
from unlearn_lightning.modules import Unlearning


def fill_splits(config: Any) -> None:
    """Completes a parsed configuration.

    Fine-tuning holds out a part of its source, which its probes then measure. Unlearning and its retain term take all of theirs, unless
    there are held-out examples beside it; probes then measure what is trained on.
    """
    unlearned = _is_a(config["model"]["class_path"], Unlearning)
    retain = config["model"]["init_args"].get("retain")
    retained = retain["data"] if retain else None
    _fill_held_out(config["data"], whole=unlearned)
    _fill_held_out(retained, whole=True)
    for callback in as_list(config["trainer"].get("callbacks")):
        settings = callback.get("init_args") or {}
        _fill_held_out(settings.get("data"), whole=False)
        # A holdout set of its own is measured as a whole, and so are examples that stand before a question.
        for further in ("holdout", "shots"):
            _fill_held_out(settings.get(further), whole=True)
        if hasattr(class_at(callback["class_path"]), "probe_name") and "split" in settings and settings["split"] is None:
            data = settings.get("data") or (retained if settings.get("of") == "retain" else config["data"])
            settings["split"] = "train" if data and data["init_args"].get("held_out_examples") == 0 else "held_out"


def check_sources(config: Mapping[str, Any]) -> None:
    """Looks for data that has neither a source nor built-in texts.

    Raises:
        ValueError: such data; the message names the setting.
    """
    for where, data in _data_of(config):
        cls = class_at(data["class_path"])
        if data["init_args"].get("source") == "world" and cls.world_rows is ExampleSource.world_rows:
            further = ", or --model.retain null to retain nothing" if where.startswith("model.retain") else ""
            raise ValueError(
                f"{where}.source: {cls.__name__} has no built-in texts. Name a file, a folder or hub:owner/name, such as "
                f"--{where}.source FILE.jsonl{further}."
            )


def _data_of(config: Mapping[str, Any]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    yield "data", config["data"]
    if retain := config["model"]["init_args"].get("retain"):
        yield "model.retain.data", retain["data"]
    for number, callback in enumerate(as_list(config["trainer"].get("callbacks"))):
        if data := (callback.get("init_args") or {}).get("data"):
            yield f"trainer.callbacks[{number}].init_args.data", data


def _fill_held_out(data: Any, whole: bool) -> None:
    if data is None or not _is_a(data["class_path"], StageData):
        return
    settings = data["init_args"]
    if "held_out_examples" in settings and settings["held_out_examples"] is None:
        divides = class_at(data["class_path"]).divides(settings["source"], settings["held_out_source"])
        settings["held_out_examples"] = 0 if whole and divides else HELD_OUT


def _is_a(class_path: str, base: type) -> bool:
    named = class_at(class_path)
    return isinstance(named, type) and issubclass(named, base)
