"""A run's key: a hash of everything that decides its result, and of nothing else.

    key, parents = run_key(resolved_config)

Weights, data, hyperparameters, probes, seeds and the source of your own classes count. Devices, loggers, progress bars, checkpoints,
workers, micro-batches and speed switches do not. Data counts by content, earlier runs by their own key, so that equal work has an equal
key wherever it lies on disk.
"""

from __future__ import annotations

import functools
import hashlib
import json
from collections.abc import Callable, Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

import torch

from unlearn_lightning.own_code import own_code
from unlearn_lightning.records import read_run
from unlearn_lightning.scratch import corpus_fingerprint

# Raised when a change of this package's code changes results.
RESULTS_VERSION = 2
TRAINER_KEYS = (
    "max_epochs", "max_steps", "max_time", "min_epochs", "min_steps", "precision", "gradient_clip_val", "gradient_clip_algorithm",
    "limit_train_batches", "overfit_batches",
)  # fmt: skip
# Where data comes from is covered by its fingerprint; how it is spread over devices does not change the result.
DATA_NEUTRAL = {
    "source", "held_out_source", "data_root", "train_examples", "prompt_field", "response_field", "response_text", "leave_out",
    "prompt_template", "data_seed", "micro_batch_size", "num_workers",
}  # fmt: skip
MODEL_NEUTRAL = {"cache_reference"}
BACKBONE_NEUTRAL = {
    "attention", "compile", "cross_entropy", "gradient_checkpointing", "shortcuts", "model", "scratch", "adapter", "tokenizer",
    "chat_template_from",
}  # fmt: skip
PROBE_NEUTRAL = {"retrained", "others", "generation_batch_size"}
# Lightning's callbacks that do not touch the result; any other configured callback counts.
LOOKING_ON = {
    "DeviceStatsMonitor", "LearningRateMonitor", "ModelCheckpoint", "ModelSummary", "RichModelSummary", "RichProgressBar", "Timer",
    "Throughput", "TQDMProgressBar",
}  # fmt: skip
# How a key begins that covers data which could not be read, or a run with such a key. It gives a plan its shape and is never executed.
UNREAD = "unread-"
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
    """The content itself."""
    return read(*args)


def run_inputs(
    config: Mapping[str, Any], known: Mapping[str, str] | None = None, content: Reader = read_content
) -> tuple[dict[str, Any], list[str]]:
    """Everything that decides a run's result, by part, and the keys of the runs it starts from."""
    parents: list[str] = []

    def origin(place: str | None) -> Any:
        if place is None:
            return None
        key = _planned_or_recorded_key(Path(place).parent, known or {})
        if key is None:
            return _content(Path(place))
        parents.append(key)
        return "a parent"

    model = config["model"]["init_args"]
    retain = model.get("retain")
    # Left out where it is null, so that keys from before there was a retain term hold.
    apart = {"retain"} if retain is None or _is_retain_term(retain) else set()
    backbone = dict(model["backbone"])
    adapters = [backbone["adapter"]] if isinstance(backbone["adapter"], str) else backbone["adapter"] or []
    scratch = backbone["scratch"] if backbone["model"] is None else None
    configured = [c for c in _as_list(config["trainer"]["callbacks"]) if c["class_path"].rpartition(".")[2] not in LOOKING_ON]
    inputs = {
        "version": RESULTS_VERSION,
        "trainer": {k: config["trainer"][k] for k in TRAINER_KEYS},
        "model": [config["model"]["class_path"], _without(model, MODEL_NEUTRAL | {"backbone"} | apart)],
        "backbone": _without(backbone, BACKBONE_NEUTRAL | (set() if backbone["quantization"] else {"quantization"})),
        "origins": [origin(p) for p in (backbone["model"], backbone["tokenizer"], backbone["chat_template_from"], *adapters)],
        "parents": parents,
        "scratch": scratch and _without(scratch, {"corpus"}),
        "corpus": content(_corpus, tuple(scratch["corpus"])) if scratch else None,
        "data": _data(config["data"], "train", content),
        "probes": [_probe(c, config["data"], content) for c in configured if _is_probe(c["class_path"])],
        "callbacks": [c for c in configured if not _is_probe(c["class_path"])],
    }
    if retain is not None and apart:
        inputs["retain"] = [_without(retain, {"data"}), _data(retain["data"], "train", content)]
    if code := own_code(_class_paths([config["model"], config["data"], configured])):
        inputs["code"] = code
    return inputs, parents


def reference_key(config: Mapping[str, Any], processes: int) -> str:
    """A hash of all that decides the starting model's log-likelihoods of the training examples, to the last bit.

    Runs that differ in objective, optimizer, schedule, epochs or the adapter they train share it. Settings that change rounding only
    (micro-batch, attention, strategy, number of processes) count here, so that a run ends with the same weights whether it finds the
    file or not.

    Args:
        config: the whole resolved config of `unlearn fit`.
        processes: that compute the values together.
    """
    inputs, _ = run_inputs(config)
    backbone = _without(
        config["model"]["init_args"]["backbone"], {"model", "scratch", "adapter", "tokenizer", "chat_template_from", "lora"}
    )
    if not inputs["scratch"]:
        del backbone["seed"]
    data_class, data, content = inputs["data"]
    kept = _without(data, {"seed", "batch_size", "bucket_batches", "held_out_examples"})
    micro_batch = config["data"]["init_args"]["micro_batch_size"] or config["data"]["init_args"]["batch_size"]
    return digest(
        [
            {name: inputs[name] for name in ("version", "origins", "parents", "scratch", "corpus")},
            [backbone, bool(config["model"]["init_args"]["backbone"]["lora"]), config["trainer"]["precision"], torch.__version__],
            [data_class, kept, content, micro_batch, processes, config["trainer"]["strategy"]],
        ]
    )


def _class_paths(value: Any) -> list[str]:
    """Every class that a part of a configuration names."""
    if isinstance(value, Mapping):
        here = [value["class_path"]] if isinstance(value.get("class_path"), str) else []
        return here + _class_paths(list(value.values()))
    return [path for one in value for path in _class_paths(one)] if isinstance(value, list | tuple) else []


def _is_retain_term(value: Any) -> bool:
    return isinstance(value, Mapping) and isinstance(value.get("data"), Mapping) and "class_path" in value["data"]


def _without(settings: Mapping[str, Any], names: set[str]) -> dict[str, Any]:
    return {k: v for k, v in settings.items() if k not in names}


def _as_list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value] if value else []


def _class(class_path: str) -> Any:
    module, _, name = class_path.rpartition(".")
    return getattr(import_module(module), name)


def _is_probe(class_path: str) -> bool:
    # By its mark and not by its type: this room is below `callbacks`.
    return hasattr(_class(class_path), "probe_name")


def _probe(config: Mapping[str, Any], trained_on: Mapping[str, Any], content: Reader) -> list[Any]:
    settings = dict(config["init_args"])
    return [
        config["class_path"],
        _without(settings, PROBE_NEUTRAL | {"data"}),
        _data(settings["data"] or trained_on, settings["split"], content) if "data" in settings else None,
    ]


def _data(config: Mapping[str, Any], split: str, content: Reader) -> list[Any]:
    kept = _without(config["init_args"], DATA_NEUTRAL | ({"batch_size", "bucket_batches", "seed"} if split == "held_out" else set()))
    return [config["class_path"], kept, content(_data_content, json.dumps(dict(config), sort_keys=True, default=str), split)]


@functools.lru_cache(maxsize=256)
def _data_content(config: str, split: str) -> str:
    parsed = json.loads(config)
    return _class(parsed["class_path"])(**parsed["init_args"]).fingerprint(split)


_corpus = functools.lru_cache(maxsize=8)(corpus_fingerprint)


def _planned_or_recorded_key(folder: Path, known: Mapping[str, str]) -> str | None:
    if str(folder) in known:
        return known[str(folder)]
    return read_run(folder)["key"] if (folder / "run.json").is_file() else None


def _content(place: Path) -> str:
    """Hash of a local folder's weights, configs and vocabulary; of the name for a Hub id."""
    if not place.is_dir():
        return str(place)
    files = sorted(path for kind in ("safetensors", "bin", "json", "jinja", "model", "txt") for path in place.glob(f"*.{kind}"))
    return _files_content(tuple((str(path), path.stat().st_size, path.stat().st_mtime_ns) for path in files))


@functools.lru_cache(maxsize=64)
def _files_content(files: tuple[tuple[str, int, int], ...]) -> str:
    """A study's runs share their base model, which may be large: it is read once while size and time of its files stay."""
    content = hashlib.sha256()
    for name, _, _ in files:
        content.update(Path(name).name.encode())
        with open(name, "rb") as file:
            while chunk := file.read(1 << 20):
                content.update(chunk)
    return content.hexdigest()
