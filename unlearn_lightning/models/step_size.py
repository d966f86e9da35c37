"""How many examples of a batch a device can take at once, from the sizes of the model, before it is loaded.

    size = StepSize.of(backbone)                    # None where the architecture does not say its sizes
    size.fixed, size.of_example(192, 120)           # bytes
    largest_share(16, lambda rows: size.fixed + rows * size.of_example(192, 120), memory_at_hand(device))

The bytes are an upper estimate by a formula: `unlearn memory`, which passes fake tensors through the real modules, takes seconds.
tests/test_micro_batch.py holds one against the other.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig

from unlearn_lightning.models.backbone import Backbone
from unlearn_lightning.models.places import located

BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}
# Of what is free, the part that is counted on: the allocator leaves gaps, and others want memory too.
USABLE = 0.85
# Tensors of the width of the residual stream, of the feed-forward layer, and of queries, keys and values, that a decoder layer keeps for
# the backward pass; logits at a response token that live at once. Counted in torch 2.13 and rounded up.
STREAM, FEED_FORWARD, ATTENTION, LOGITS = 9, 4, 3, 6
CGROUP = Path("/sys/fs/cgroup")


@dataclass(frozen=True)
class StepSize:
    """The sizes of a model, as far as the memory of a training step depends on them.

    Attributes:
        hidden, intermediate, layers, vocabulary: of the model.
        projected: width of queries, keys and values together.
        heads: of attention.
        parameters: of the base model.
        backbone: how it is loaded and trained.
    """

    hidden: int
    intermediate: int
    layers: int
    vocabulary: int
    projected: int
    heads: int
    backbone: Backbone

    @staticmethod
    def of(backbone: Backbone) -> StepSize | None:
        """The sizes of a backbone's model; None where its configuration does not name them in the usual way."""
        if backbone.model is None:
            scratch: Any = backbone.scratch
            kv = scratch.kv_heads or scratch.heads
            width = scratch.hidden // scratch.heads * (scratch.heads + 2 * kv)
            return StepSize(
                scratch.hidden, scratch.intermediate, scratch.layers, scratch.vocab_size, width, scratch.heads, backbone
            )  # fmt: skip
        config = AutoConfig.from_pretrained(located(backbone.model), revision=backbone.revision, trust_remote_code=False).get_text_config()
        try:
            heads, hidden = config.num_attention_heads, config.hidden_size
            kv = getattr(config, "num_key_value_heads", None) or heads
            head = getattr(config, "head_dim", None) or hidden // heads
            intermediate = getattr(config, "intermediate_size", None) or 4 * hidden
            return StepSize(
                hidden, intermediate, config.num_hidden_layers, config.vocab_size, head * (heads + 2 * kv), heads, backbone
            )  # fmt: skip
        except AttributeError:
            return None

    @property
    def parameters(self) -> int:
        """The base model's weights, counted as if head and embeddings were two."""
        layer = self.hidden * (2 * self.projected + 3 * self.intermediate)
        return self.layers * layer + 2 * self.vocabulary * self.hidden

    @property
    def fixed(self) -> int:
        """Bytes of weights, gradients and the optimizer's averages."""
        width = {"nf4": 0.6, "int8": 1.1}.get(str(self.backbone.quantization), BYTES[self.backbone.dtype])
        if self.backbone.lora is None:
            return round(self.parameters * (width + 3 * BYTES[self.backbone.dtype]))
        adapter = 2 * self.layers * self.backbone.lora.rank * (3 * self.hidden + self.projected + 3 * self.intermediate)
        return round(self.parameters * width + adapter * 4 * BYTES["float32"])

    def of_example(self, length: int, response: int) -> int:
        """Bytes that a training step takes for each example at once.

        Args:
            length: its tokens, with the padding.
            response: of these, tokens of responses.
        """
        # Norms compute in float32 whatever the model's type.
        width = BYTES["float32"]
        kept = STREAM * self.hidden + FEED_FORWARD * self.intermediate + ATTENTION * self.projected
        layers = 2 if self.backbone.gradient_checkpointing else self.layers
        streams = self.layers * self.hidden if self.backbone.gradient_checkpointing else 0
        scores = self.heads * length if self.backbone.attention == "eager" else 1
        logits = LOGITS * self.vocabulary if self.backbone.cross_entropy == "full" else 2 * self.hidden
        return width * (length * (layers * (kept + 2 * scores) + streams) + response * logits)


def largest_share(examples: int, bytes_of: Callable[[int], int], at_hand: int | None) -> int:
    """The largest part of a device's examples that divides them and fits; all of them where the memory is not known.

    Args:
        examples: of a batch, on one device.
        bytes_of: what so many examples at once take.
        at_hand: the bytes that are free; null where that is not known.
    """
    parts = [part for part in range(examples, 0, -1) if examples % part == 0]
    return next((part for part in parts if at_hand is None or bytes_of(part) <= USABLE * at_hand), 1)


def memory_at_hand(device: torch.device, processes: int = 1) -> int | None:
    """The bytes that a process can still have on its device: of a GPU its free memory, else of the machine or its control group.

    Args:
        device: where it computes.
        processes: of this run on the machine, which share a CPU's memory.
    """
    if device.type == "cuda":
        unused = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return int(torch.cuda.mem_get_info(device)[0]) + unused
    facts = Path("/proc/meminfo")
    if device.type != "cpu" or not facts.is_file():
        return None
    free = {name: int(rest.split()[0]) * 1024 for name, _, rest in (line.partition(":") for line in facts.read_text().splitlines())}
    bounds = [free.get("MemAvailable"), _control_group()]
    known = [bound for bound in bounds if bound is not None]
    return min(known) // processes if known else None


def _control_group() -> int | None:
    """What the control group of this process, as containers and SLURM set it, has left; None without a limit."""
    own = Path("/proc/self/cgroup")
    path = own.read_text().strip().rpartition("::")[2].lstrip("/") if own.is_file() else ""
    for folder in (CGROUP / path, CGROUP):
        try:
            limit = (folder / "memory.max").read_text().strip()
            used = int((folder / "memory.current").read_text())
            files = dict(line.split() for line in (folder / "memory.stat").read_text().splitlines())
        except (OSError, ValueError):
            continue
        # Files that are cached are let go when memory is wanted.
        return None if limit == "max" else max(0, int(limit) - used + int(files.get("inactive_file", 0)))
    return None


def processes_here() -> int:
    """The processes of this run on this machine."""
    return int(os.environ.get("LOCAL_WORLD_SIZE", os.environ.get("SLURM_NTASKS_PER_NODE", "1")) or 1)
