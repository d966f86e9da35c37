"""A model in eval mode as a run built it, for what asks it questions outside of a trainer: benchmarks, and the sampling of alternates.

net, tokenizer, date = loaded(Path("runs/forgotten"), is_end=True)      # stacked adapters, adapters over 4-bit weights, or whole weights
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedTokenizerBase

from unlearn_lightning.cli.measuring import trained_config
from unlearn_lightning.inference.generation import end_tokens
from unlearn_lightning.models.backbone import Backbone, Lora
from unlearn_lightning.models.scratch import Scratch
from unlearn_lightning.records import read_run
from unlearn_lightning.runs.measured import ResultBackbone, result_backbone

Built = tuple[nn.Module, PreTrainedTokenizerBase, str]


def loaded(folder: Path, is_end: bool) -> Built:
    """A run's model in eval mode, its tokenizer, and the date that its chat template prints.

    Args:
        folder: a finished run's.
        is_end: the run's result; otherwise the model that the run began with.
    """
    config = trained_config(folder)
    own = config["model"]["init_args"]["backbone"]
    if is_end:
        return _built(ResultBackbone, result_backbone(folder, own), config["seed_everything"], True)
    return _built(Backbone, own, config["seed_everything"], read_run(folder)["kind"] == "unlearn")


def starting_model(config: Mapping[str, Any]) -> Built:
    """The model that unlearning would start from, as `loaded` gives it.

    Args:
        config: the whole configuration of an `unlearn fit`.
    """
    return _built(Backbone, config["model"]["init_args"]["backbone"], config["seed_everything"], True)


def _built(kind: type[Backbone], given: Mapping[str, Any], seed: int | None, freezes: bool) -> Built:
    settings = dict(given)
    settings |= {"shortcuts": False, "compile": None, "gradient_checkpointing": False, "cross_entropy": "full"}
    settings["scratch"] = None if settings["model"] else Scratch(**settings["scratch"])
    settings["lora"] = settings["lora"] and Lora(**settings["lora"])
    if settings["seed"] is None:
        settings["seed"] = seed
    backbone = kind(**settings)
    net: Any = backbone.load_for_unlearning() if freezes else backbone.load_for_fine_tuning()
    device = "cuda" if torch.cuda.is_available() else "cpu"
    if net.device.type != device:
        net = net.to(device)
    tokenizer = backbone.load_tokenizer()
    net.generation_config.eos_token_id = end_tokens(net, tokenizer)
    return net.eval(), tokenizer, backbone.template_date
