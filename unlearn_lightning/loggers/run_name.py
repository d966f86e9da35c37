"""How a single run is called in W&B and MLflow: by what it does, to what, and with which settings. A study's runs have their own names.

described(config, "fit", Path("runs/mine"))
# {"name": "NPO beta=0.5 lr=0.001 tiny-llama r16 SafetyStage seed=0 mine", "group": "SafetyStage tiny-llama", "job_type": "fit",
#  "tags": ["objective=NPO", "lr=0.001", ...]}
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

# What every module has; the other settings are its own, and are named.
SHARED = ("backbone", "optimizer", "lr_scheduler", "cache_reference", "retain")
# A folder of this name is called after the run it lies in.
RESULTS = ("model", "adapter")
LONGEST_TAG, LONGEST_NAME = 64, 128


def described(config: Mapping[str, Any], verb: str, folder: Path) -> dict[str, Any]:
    """Name, group, job type and tags of a run; WANDB_NAME and WANDB_RUN_GROUP come first where they are set.

    Args:
        config: the run's whole resolved configuration.
        verb: fit, validate or test.
        folder: the run folder, whose name stands at the end, or of a drawn one the end of its name.
    """
    facts = _facts(config)
    own = [f"{name}={value}" for name, value in facts.items() if name not in ("objective", "data", "backbone", "lora", "retain")]
    own, seed = own[:-1], own[-1:]
    what = [facts["objective"], *own, facts["backbone"], *([facts["lora"]] if "lora" in facts else []), facts["data"]]
    what += [f"retain {facts['retain']}"] if "retain" in facts else []
    place = folder.name if config.get("run_folder") else folder.name.rpartition("-")[2]
    name = " ".join([*([verb] if verb != "fit" else []), *what, *seed, place])
    return {
        "name": os.environ.get("WANDB_NAME") or name[:LONGEST_NAME],
        "group": os.environ.get("WANDB_RUN_GROUP") or f"{facts['data']} {facts['backbone']}",
        "job_type": os.environ.get("WANDB_JOB_TYPE") or verb,
        "tags": [f"{name}={value}" for name, value in facts.items()],
    }


def _facts(config: Mapping[str, Any]) -> dict[str, str]:
    """What tells runs apart, by name in the order in which it is said; what a class does not have is left out."""
    model, settings = config["model"], config["model"].get("init_args") or {}
    facts = {"objective": _class(model)}
    facts |= {name: _short(value) for name, value in settings.items() if name not in SHARED and isinstance(value, (bool, int, float, str))}
    optimizer = settings.get("optimizer") or {}
    if (rate := (optimizer.get("init_args") or {}).get("lr")) is not None:
        facts["lr"] = _short(rate)
    facts["backbone"] = _backbone(settings["backbone"])
    if lora := settings["backbone"].get("lora"):
        facts["lora"] = f"r{lora['rank']}"
    facts["data"] = _class(config["data"])
    if retain := settings.get("retain"):
        facts["retain"] = f"{_class(retain['data'])}*{_short(retain['weight'])}"
    return facts | {"seed": str(config["seed_everything"])}


def _class(entry: Mapping[str, Any]) -> str:
    return str(entry["class_path"]).rpartition(".")[2]


def _short(value: Any) -> str:
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def _backbone(settings: Mapping[str, Any]) -> str:
    """`Llama-3.2-1B` of a Hub id, a folder's name, the run's of a run's result; with -nf4 or -int8 where it is quantised."""
    if settings.get("model") is None:
        name = f"scratch-{settings['scratch']['architecture']}"
    else:
        place = Path(str(settings["model"]).removeprefix("builtin:"))
        name = place.parent.name if place.name in RESULTS else place.name
    return f"{name}-{settings['quantization']}" if settings.get("quantization") else name
