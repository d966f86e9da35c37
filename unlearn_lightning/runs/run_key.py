"""A run's key: a hash of everything that decides its result, and of nothing else.

    key, parents = run_key(resolved_config)

Every setting counts but those that neutral.py lists with a reason. Data, models and code count by content, earlier runs by their own
key, so that equal work has an equal key wherever it lies on disk.
"""

from __future__ import annotations

import functools
import hashlib
import json
from collections.abc import Callable, Container, Iterable, Mapping
from pathlib import Path
from typing import Any

import torch

from unlearn_lightning.models.places import check_place, is_path, located
from unlearn_lightning.models.scratch import corpus_fingerprint
from unlearn_lightning.records import read_run
from unlearn_lightning.runs import neutral
from unlearn_lightning.runs.content import RESULTS, content_of, hub_commit, key_of_result
from unlearn_lightning.runs.source_hash import SHARED, class_name, is_own, lineage, named_object, own_code, portable

# A part of every key and of every reference's name, for the code that neither hashes. They cover the files of the classes that a run
# names (source_hash.own_code), but not the code of this package that these call, nor the classes in source_hash.SHARED. Raise it by one
# where a change there moves weights or measured numbers by more than rounding: every run of before is then trained again. A change that
# moves code, or concerns time, memory, messages, loggers or resuming, leaves it as it is.
RESULTS_VERSION = 3
# How a key begins that covers data which could not be read, or a run with such a key. It gives a plan its shape and is never executed.
UNREAD = "unread-"
# What decides a reference's values beside weights and data; an objective may bring its own.
LIKELIHOOD = ("build", "token_log_likelihood", "response_log_likelihood", "_compute_reference")
# Gives read(*args), or for a plan a name where that fails.
Reader = Callable[..., str]


def run_key(config: Mapping[str, Any], known: Mapping[str, str] | None = None) -> tuple[str, list[str]]:
    """The key of a run, and the keys of the runs it starts from.

    Args:
        config: the whole resolved config of `unlearn fit`.
        known: run folder -> key, for runs that are planned but not there yet.
    """
    inputs, parents = run_inputs(config, known)
    return digest(inputs), parents


def digest(content: Any) -> str:
    """SHA-256 of a JSON value, marked where it holds something unread."""
    text = json.dumps(content, sort_keys=True, default=str)
    return (UNREAD if f'"{UNREAD}' in text else "") + hashlib.sha256(text.encode()).hexdigest()


def read_content(read: Reader, *args: Any) -> str:
    """Returns `read(*args)`: a run that is executed reads all that its key covers; a plan may take a name for it (study/unread.py)."""
    return read(*args)


def run_inputs(
    config: Mapping[str, Any], known: Mapping[str, str] | None = None, content: Reader = read_content
) -> tuple[dict[str, Any], list[str]]:
    """Everything that decides a run's result, by part, and the keys of the runs it starts from.

    Raises:
        FileNotFoundError: it starts from a model folder that is not there.
        HubError: it starts from a Hub model that neither the Hub nor the local cache knows.
    """
    parents: list[str] = []

    def origin(place: str | None, revision: str | None = None) -> Any:
        if place is None:
            return None
        place = located(place)
        key = _planned_key(Path(place), known or {}) or key_of_result(Path(place))
        if key is not None:
            parents.append(key)
            return "a parent"
        if is_path(place):
            check_place(place, "backbone")
        return content_of(Path(place)) if Path(place).exists() else ["hub", place, content(hub_commit, place, revision)]

    model, trainer = config["model"]["init_args"], config["trainer"]
    module = named_object(config["model"]["class_path"])
    retain = model.get("retain") if _is_retain_term(model.get("retain")) else None
    backbone = model["backbone"]
    adapters = [backbone["adapter"]] if isinstance(backbone["adapter"], str) else backbone["adapter"] or []
    scratch = backbone["scratch"] if backbone["model"] is None else None
    acting = [c for c in _as_list(trainer["callbacks"]) if not _looks_on(c["class_path"])]
    inputs = {
        "version": RESULTS_VERSION,
        "run": _without(config, {"model", "data", "trainer", *neutral.RUN, *neutral.RUN_BY_CONTENT}),
        "trainer": _trainer(trainer),
        "model": [
            class_name(config["model"]["class_path"]),
            _without(model, {"backbone", *(("retain",) if retain else ()), *_of_class(module, neutral.MODULES)}),
        ],
        "backbone": _without(backbone, {*neutral.BACKBONE_TO_ROUNDING, *neutral.BACKBONE_BY_CONTENT}),
        "origins": [
            origin(backbone["model"], backbone["revision"]),
            *(origin(place) for place in (backbone["tokenizer"], backbone["chat_template_from"], *adapters)),
        ],
        "parents": parents,
        "scratch": scratch and _without(scratch, {"corpus"}),
        "corpus": content(_corpus, tuple(scratch["corpus"]), scratch["architecture"]) if scratch else None,
        "data": _data(config["data"], "train", content),
        "retain": retain and [_without(retain, {"data"}), _data(retain["data"], "train", content)],
        "callbacks": acting,
        "code": own_code(_class_paths([config["model"], config["data"], acting, _trainer(trainer)])),
    }
    inputs = portable(inputs)
    # A run's own checkpoint is where it goes on; any other is where it starts from.
    if (checkpoint := config.get("ckpt_path")) and not _is_of_run(Path(checkpoint), digest(inputs)):
        inputs["checkpoint"] = content_of(Path(checkpoint)) if Path(checkpoint).exists() else checkpoint
    return inputs, parents


def reference_key(config: Mapping[str, Any], computed_with: Mapping[str, Any], content: Reader = read_content) -> str:
    """A hash of all that decides the starting model's log-likelihoods of the training examples, to the last bit.

    All that a run's key covers counts here too but for what neutral.py says of the reference, such as objective, optimizer, schedule,
    epochs or the adapter that is trained. What changes rounding only counts as well, so that a run ends with the same weights whether it
    finds the file or not.

    Args:
        config: the whole resolved config of `unlearn fit`.
        computed_with: what the results are equal to rounding in (`computed_with.computed_with`).
        content: reads what the key covers.
    """
    inputs, _ = run_inputs(config, content=content)
    module = named_object(config["model"]["class_path"])
    data_class, data, texts = inputs["data"]
    callbacks = [c for c in _as_list(config["trainer"]["callbacks"]) if not _looks_on(c["class_path"])]
    # Random weights only: the adapter's are switched off.
    unseeded = set() if inputs["scratch"] else {"seed"}
    parts = {name: value for name, value in inputs.items() if name not in neutral.REFERENCE_PARTS} | {
        "run": _without(inputs["run"], neutral.REFERENCE_RUN),
        "trainer": _without(inputs["trainer"], neutral.REFERENCE_TRAINER),
        "backbone": _without(inputs["backbone"], {*neutral.REFERENCE_BACKBONE, *unseeded}),
        "data": [data_class, _without(data, neutral.REFERENCE_DATA), texts],
    }
    likelihood = [path for name in LIKELIHOOD if (path := _defined_by(module, name))]
    code = own_code([*_class_paths([config["data"], callbacks]), *likelihood])
    has_adapter = bool(config["model"]["init_args"]["backbone"]["lora"])
    return digest([parts, likelihood, code, has_adapter, torch.__version__, computed_with])


def _defined_by(module: Any, method: str) -> str | None:
    """The class path of the class that gives an objective this method; None where shared code does."""
    owner = next((cls for cls in lineage(module) if method in vars(cls)), None)
    return None if owner is None or owner.__name__ in SHARED else f"{owner.__module__}.{owner.__name__}"


def _class_paths(value: Any) -> list[str]:
    """Every class that a part of a configuration names."""
    if isinstance(value, Mapping):
        here = [value["class_path"]] if isinstance(value.get("class_path"), str) else []
        return here + _class_paths(list(value.values()))
    return [path for one in value for path in _class_paths(one)] if isinstance(value, list | tuple) else []


def _is_retain_term(value: Any) -> bool:
    return isinstance(value, Mapping) and isinstance(value.get("data"), Mapping) and "class_path" in value["data"]


def _without(settings: Mapping[str, Any], names: Container[str]) -> dict[str, Any]:
    return {k: v for k, v in settings.items() if k not in names}


def _as_list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value] if value else []


def _trainer(settings: Mapping[str, Any]) -> dict[str, Any]:
    foreign = {name for name in neutral.TRAINER_TO_ROUNDING if any(not is_own(named_object(p)) for p in _class_paths(settings.get(name)))}
    return _without(settings, {"callbacks", *neutral.TRAINER, *(neutral.TRAINER_TO_ROUNDING.keys() - foreign)})


def _of_class(cls: Any, table: Mapping[str, Mapping[str, str]]) -> Iterable[str]:
    """The neutral settings that a class has from classes of this package."""
    return [name for base in lineage(cls) if is_own(base) for name in table.get(base.__name__, {})]


def _looks_on(class_path: str) -> bool:
    """Whether a callback changes no weights: one that is listed so, or a probe, unless it does something of its own at a training step."""
    named = named_object(class_path)
    if is_probe(class_path):
        return not any(name.startswith("on_") for base in lineage(named) if _is_foreign(base) for name in vars(base))
    shipped = is_own(named) or _of_lightning(named)
    return shipped and named.__name__ in neutral.CALLBACKS


def _of_lightning(named: Any) -> bool:
    return named.__module__.partition(".")[0] in ("lightning", "pytorch_lightning")


def _is_foreign(named: Any) -> bool:
    return not is_own(named) and not _of_lightning(named)


def is_probe(class_path: str) -> bool:
    """Whether a callback is a probe."""
    # A probe is recognised by an attribute and not by its class, because this room lies below `callbacks` and cannot import it.
    return hasattr(named_object(class_path), "probe_name")


def probe_key(probe: Mapping[str, Any], config: Mapping[str, Any], content: Reader = read_content) -> str:
    """A hash of all that decides what a probe finds in a given model: its settings, the texts that it measures, and its class's source.

    Args:
        probe: the callback's part of the configuration.
        config: the whole configuration of the run, whose data a probe without data of its own measures.
        content: reads what the key covers.
    """
    retain = config["model"]["init_args"].get("retain")
    data = measured_data(probe["init_args"], config["data"], retain and retain["data"])
    code = own_code(_class_paths([probe, data]))
    return digest(portable([RESULTS_VERSION, _probe(probe, data, content), code]))[:16]


def measured_data(settings: Mapping[str, Any], trained_on: Mapping[str, Any], retained: Any) -> Any:
    """The part of the configuration that says which data a probe measures: its own, or that which it names by `of`."""
    return settings.get("data") or (retained if settings.get("of") == "retain" else trained_on)


def _probe(config: Mapping[str, Any], data: Any, content: Reader) -> list[Any]:
    settings, cls = config["init_args"], named_object(config["class_path"])
    measured = _data(data, settings["split"], content, neutral.MEASURED) if data and "data" in settings else None
    # Which data set `of` names counts by the data itself.
    kept = _without(settings, {"data", "of", *_of_class(cls, neutral.PROBES)})
    # Fields that a probe itself reads, such as those of wrong answers, are no part of the examples' texts.
    fields = sorted(value for name, value in kept.items() if name.endswith("_field") and isinstance(value, str))
    texts = json.dumps(texts_alone(data), sort_keys=True, default=str) if fields and data else None
    read = [] if texts is None else [content(_field_content, texts, settings["split"], tuple(fields))]
    for name in ("holdout", "shots"):
        if isinstance(further := kept.get(name), Mapping):
            split = kept.get(f"{name}_split") or ("held_out" if further["init_args"].get("held_out_examples") else "train")
            kept = {**kept, name: _data(further, split, content, neutral.MEASURED)}
    return [class_name(config["class_path"]), kept, measured, *read]


def _data(config: Mapping[str, Any], split: str, content: Reader, further: Iterable[str] = ()) -> list[Any]:
    kept = _without(config["init_args"], {*neutral.DATA, *neutral.DATA_TO_ROUNDING, *neutral.DATA_BY_CONTENT, *further})
    return [
        class_name(config["class_path"]),
        kept,
        content(_data_content, json.dumps(texts_alone(config), sort_keys=True, default=str), split),
    ]


def texts_alone(config: Mapping[str, Any]) -> dict[str, Any]:
    """A data configuration without what its texts do not depend on; a plug-in's class may read any of its settings for them."""
    if not is_own(named_object(config["class_path"])):
        return dict(config)
    return {**config, "init_args": _without(config["init_args"], neutral.BEYOND_TEXTS)}


@functools.lru_cache(maxsize=256)
def _data_content(config: str, split: str) -> str:
    parsed = json.loads(config)
    return str(named_object(parsed["class_path"])(**parsed["init_args"]).fingerprint(split))


@functools.lru_cache(maxsize=64)
def _field_content(config: str, split: str, fields: tuple[str, ...]) -> str:
    parsed = json.loads(config)
    rows = named_object(parsed["class_path"])(**parsed["init_args"]).rows(split)
    return digest([[row.fields.get(field) for field in fields] for row in rows])


_corpus = functools.lru_cache(maxsize=8)(corpus_fingerprint)


def _planned_key(place: Path, known: Mapping[str, str]) -> str | None:
    return known.get(str(place.parent)) if place.name in RESULTS else None


def _is_of_run(checkpoint: Path, key: str) -> bool:
    folder = checkpoint.absolute().parent.parent
    return (folder / "run.json").is_file() and read_run(folder).get("key") == key
