"""Decides at a run's start which fast paths its network takes, on the run's own examples, the same on all processes.

decide_paths(module, trainer)           # a tested architecture returns at once
"""

from __future__ import annotations

from typing import Any

import torch

from unlearn_lightning.data import collate
from unlearn_lightning.inference import fast_paths, generation, likelihood, multiple_choice
from unlearn_lightning.models.adapters import eval_mode
from unlearn_lightning.models.sharding import lockstep

# Tokens that stand for a response where candidates and generation are compared.
RESPONSE = 16


def decide_paths(module: Any, trainer: Any) -> None:
    """Compares on the longest of all examples that are trained on or measured.

    Raises:
        ValueError: FSDP2, and rows must be computed one at a time, of which processes have different numbers.
    """
    net = module.net
    limit = fast_paths.settled_length(net)
    if fast_paths.known(net) and limit is None:
        return
    sources = [*trainer.datamodule.encoded.values(), *(getattr(callback, "encoded", ()) for callback in trainer.callbacks)]
    retain = getattr(module, "_retain_batches", None)
    examples = [example for source in (*sources, retain.encoded if retain else ()) for example in source]
    if not examples:
        return
    longest = max((one for e in examples for one in (e, e.alternative) if one is not None), key=len)
    batch = collate([longest], 0).to(module.device)
    inputs = batch.input_ids, batch.attention_mask
    tokens = inputs[0][0].tolist()
    cut = max(1, len(tokens) - RESPONSE)
    # All processes leave the passes' lockstep before they talk about what they found.
    with fast_paths.agreed(net), torch.no_grad(), eval_mode(net), trainer.precision_plugin.forward_context(), lockstep(net):
        way = likelihood.chosen_way(net, *inputs, module.backbone.cross_entropy)
        likelihood.chosen_way(net, *inputs, "full")
        multiple_choice.chosen_way(net, [tokens[:cut]], [tokens[cut:] or tokens])
        new_tokens = max(RESPONSE, *(getattr(callback, "max_new_tokens", 0) for callback in trainer.callbacks), 0)
        generation.chosen_way(net, [tokens[:cut]], new_tokens, frozenset(generation.end_tokens(net, module.tokenizer)))
    if way == likelihood.WAYS[-1] and fast_paths.sharded(net):
        raise ValueError(likelihood.NOT_IN_SHARDS)
