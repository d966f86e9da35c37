"""`unlearn memory CONFIG...`: which GPU holds a training step of these backbones. Prints a table in Markdown.

unlearn memory configs/backbones/llama3.1-*.yaml --micro_batch_size 4
unlearn memory configs/backbones/llama3.1-70b*.yaml --trainer configs/trainers/fsdp2_8gpus.yaml
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jsonargparse

from unlearn_lightning.cli.config_files import find
from unlearn_lightning.cli.line_parser import LineParser
from unlearn_lightning.records.yaml_files import read_mapping

# Memory of common GPUs, in 10^9 bytes: RTX 4090 and L4, A100-40, L40S, A100-80 and H100, H200.
GPUS = (24, 40, 48, 80, 141)
# For CUDA's own memory and for gaps between tensors; an allowance, not a measurement.
USABLE = 0.9
GB = 1e9
HEAD = ("backbone", "trains", "weights", "trained", "gathered", "activations", "total", "GPU", "recomputed", "total", "GPU")


def parser() -> jsonargparse.ArgumentParser:
    """The arguments of `unlearn memory`."""
    found = LineParser(
        prog="unlearn memory",
        description="Memory of one training step on each device, from the real modules without their memory, and the GPU that holds it.",
    )
    found.add_argument("configs", nargs="+", type=str, help="Files with a backbone, such as configs/backbones/llama3.1-8b-nf4.yaml.")
    found.add_argument("--trainer", type=str | None, default=None, help="A file with a trainer's devices, nodes, strategy, precision.")
    found.add_argument("--length", type=int, default=512, help="Tokens per example.")
    found.add_argument("--response", type=int, default=256, help="Of these, tokens whose likelihood is computed.")
    found.add_argument("--micro_batch_size", type=int, default=4, help="Examples at once on a device.")
    found.add_argument("--devices", type=int | None, default=None, help="How many, over all nodes; null for the trainer's.")
    found.add_argument("--strategy", type=str | None, default=None, help="ddp or fsdp2; null for the trainer's.")
    found.add_argument("--full", action="store_true", help="Train all weights in float32 instead of an adapter.")
    return found


def memory(arguments: Sequence[str]) -> int:
    """Runs the command and returns its exit status."""
    options = parser().parse_args(list(arguments) or ["--help"])
    try:
        lines = table(options)
    except (TypeError, KeyError) as error:
        raise ValueError(f"{', '.join(options.configs)}: no settings of a backbone and a trainer ({error}).") from error
    print("\n".join(lines))
    return 0


def table(options: Any) -> list[str]:
    """The table's lines, and below it what they mean."""
    from unlearn_lightning.study.estimate import Estimator
    from unlearn_lightning.study.memory import step_memory
    from unlearn_lightning.study.unread import quick_hub

    estimator = Estimator()
    lines = [_row(HEAD), _row(["---"] * 2 + ["---:"] * (len(HEAD) - 2))]
    with quick_hub():
        for file in options.configs:
            backbone, step = _setup(file, options)
            kept, again = (
                step_memory(dataclasses.replace(backbone, gradient_checkpointing=recompute), step, estimator) for recompute in (False, True)
            )
            trains = "all" if backbone.lora is None else f"LoRA {backbone.lora.rank}"
            how = f"{backbone.quantization or backbone.dtype}" + (", bf16-mixed" if step.autocast else "")
            place = "" if step.devices == 1 else f", {step.devices} x {'fsdp2' if step.sharded else 'ddp'}"
            trained = kept.adapter + kept.gradients + kept.optimizer
            row = [f"{Path(file).stem} ({how}{place})", trains, *map(_gb, (kept.weights, trained, kept.gathered))]
            for need in (kept, again):
                row += [_gb(need.activations), _gb(need.total), smallest_gpu(need.total)]
            lines.append(_row(row))
    return [
        *lines, "",
        f"10^9 bytes on one device, at the worst moment of an unlearning step with a reference: {options.micro_batch_size} examples of "
        f"{options.length} tokens at once, likelihoods of {options.response} of them. trained: the adapter's weights (where all are "
        "trained they are under weights), gradients, optimizer. gathered: whole weights that FSDP2 puts together for a while. recomputed: "
        "activations with gradient checkpointing; the total and GPU after it belong to it. GPU: the smallest of "
        f"{', '.join(map(str, GPUS))} GB of which {USABLE:.0%} suffice.",
        *estimator.notes,
    ]  # fmt: skip


def smallest_gpu(total: int) -> str:
    """The smallest GPU that holds so many bytes, in GB."""
    return next((str(size) for size in GPUS if total <= USABLE * size * GB), "none")


def _setup(file: str, options: Any) -> tuple[Any, Any]:
    """The backbone in the file, and the step on one device of the trainer in it, or in --trainer.

    Raises:
        ValueError, FileNotFoundError: it has no backbone, or is not there.
    """
    from unlearn_lightning.models.backbone import Backbone, Lora
    from unlearn_lightning.models.scratch import Scratch
    from unlearn_lightning.study.memory import Step

    config = read_mapping(find(file))
    settings = config.get("model", {}).get("init_args", {}).get("backbone")
    if settings is None:
        raise ValueError(f"{file} holds no model.init_args.backbone. The files in configs/backbones do.")
    lora, scratch = settings.get("lora", {}), settings.get("scratch")
    backbone = Backbone(**{
        **settings, "lora": None if lora is None else Lora(**lora), "scratch": Scratch(**scratch) if scratch else None, "adapter": None,
    })  # fmt: skip
    trainer = dict(config.get("trainer", {}))
    if options.trainer:
        trainer |= read_mapping(find(options.trainer))["trainer"]
    if options.full:
        backbone = dataclasses.replace(backbone, lora=None, quantization=None, dtype="float32")
    devices, strategy = options.devices or devices_in(trainer), options.strategy or trainer.get("strategy", "ddp")
    if strategy not in ("ddp", "fsdp2", "auto"):
        raise ValueError(f"strategy {strategy!r} is not known here: ddp and fsdp2 are.")
    autocast = str(trainer.get("precision")) == "bf16-mixed"
    step = Step(options.length, options.response, options.micro_batch_size, autocast, devices, sharded=strategy == "fsdp2")
    return backbone, step


def devices_in(trainer: dict[str, Any]) -> int:
    """Over all nodes; 1 where the trainer leaves it open."""
    per_node = trainer.get("devices", 1)
    return int(trainer.get("num_nodes", 1)) * (1 if per_node in ("auto", -1) else int(per_node))


def _row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def _gb(count: int) -> str:
    return f"{count / GB:.1f}" if count >= 0.05 * GB else f"{count / GB:.2f}" if count else "0"
