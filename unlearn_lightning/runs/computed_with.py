"""What a run was computed with: all that changes its result by rounding only, and that training may nevertheless make large.

    computed_with(config, trainer)
    # {"attention": "sdpa", ..., "micro_batch_size": 8, "processes": 1, "threads": 1, "processor": "AMD EPYC ..., AVX512"}

No part of a run's key; run.json has it, and the report says where runs that it compares differ in it.
"""

from __future__ import annotations

import platform
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from unlearn_lightning.runs.neutral import BACKBONE_TO_ROUNDING


def computed_with(config: Mapping[str, Any], trainer: Any) -> dict[str, Any]:
    """The settings that neutral.py calls neutral to rounding, and the machine.

    Args:
        config: the whole resolved configuration.
        trainer: Lightning's, which knows the devices.
    """
    backbone, data = config["model"]["init_args"]["backbone"], config["data"]["init_args"]
    return {
        **{name: backbone[name] for name in sorted(BACKBONE_TO_ROUNDING)},
        # What memory decided on is known once the data is set up.
        "micro_batch_size": data["micro_batch_size"]
        or getattr(getattr(trainer, "datamodule", None), "at_once", None)
        or data["batch_size"] // trainer.world_size,
        "strategy": type(trainer.strategy).__name__,
        "processes": trainer.world_size,
        "threads": torch.get_num_threads(),
        "benchmark": torch.backends.cudnn.benchmark,
        "deterministic": torch.are_deterministic_algorithms_enabled(),
        "processor": processor(trainer.strategy.root_device),
    }


def processor(device: torch.device) -> str:
    """The name of the GPU, or of the CPU with the instructions that torch uses on it."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    facts = Path("/proc/cpuinfo")
    lines = facts.read_text(encoding="utf-8", errors="replace").splitlines() if facts.is_file() else []
    name = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.processor() or device.type)
    return f"{name}, {torch.backends.cpu.get_cpu_capability()}"
