"""`unlearn export RUN`: a run's model for plain transformers and PEFT, as one adapter or as merged weights, with a model card.

    unlearn export runs/forgotten --out exported
    PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base), "exported")        # needs nothing of this package

A stack of LoRA adapters is one LoRA adapter: its A and B are theirs put side by side, its rank the sum of their ranks. Nothing is lost.
"""

from __future__ import annotations

import unlearn_lightning.inference.hub_kernels  # isort: skip  # noqa: F401

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel

from unlearn_lightning.inference.generation import end_tokens
from unlearn_lightning.models.adapters import load_adapter
from unlearn_lightning.models.backbone import Backbone, Dtype
from unlearn_lightning.models.merging import tied_targets, untie
from unlearn_lightning.records import is_finished, last_record, number, read_run, write_text
from unlearn_lightning.runs.content import refuse_changed
from unlearn_lightning.runs.export_check import LIMITS, difference, predictions, run_examples
from unlearn_lightning.runs.moved import read_config

WHOLE = "whole"


def export(run: Path, out: Path, merge: bool = False, dtype: Dtype | None = None, accept_difference: bool = False) -> str:
    """Writes the exported model and gives a sentence on how exact it is, as measured on the run's own examples.

    Args:
        run: a finished run folder with an adapter.
        out: folder to write; must not exist or be empty.
        merge: write whole weights instead of an adapter. A quantised backbone is dequantised before, because merging into 4-bit weights
            would round the adapter away; and a head that shares its weights with the embeddings gets its own where an adapter changes
            either. So the result is the model that was trained.
        dtype: of the merged weights; null for the base model's. float32 rounds nothing.
        accept_difference: write it also where it differs from the trained model by more than the bound.

    Raises:
        FileNotFoundError: there is no such run, or one of its adapters is gone.
        ValueError: the run is not finished or has no adapter, its adapter is not as it was made, `out` holds something, or the export is
            another model than the trained one.
    """
    if not is_finished(run):
        raise ValueError(f"{run} holds no finished run. `unlearn fit` or `unlearn study` must end it first.")
    if not (run / "adapter").is_dir():
        raise ValueError(f"{run} holds whole weights, not an adapter: {run / 'model'} loads in transformers as it is.")
    refuse_changed(run)
    if dtype and not merge:
        raise ValueError("--dtype is the merged weights': give --merge as well. An adapter alone is always float32.")
    if out.exists() and any(out.iterdir()):
        raise ValueError(f"{out} is not empty. Choose another --out.")
    settings = run_backbone(run)
    own = str(run / "adapter")
    # A stage goes on with the last adapter, unlearning puts a new one on top of all.
    adapters = [*(settings.adapters if read_run(run)["kind"] == "unlearn" else settings.adapters[:-1]), own]
    dtype = dtype or settings.dtype
    examples = run_examples(run, settings.load_tokenizer())
    net = _stack(settings, adapters)
    before = predictions(net, examples)
    if merge and (settings.quantization or dtype != settings.dtype):
        del net
        net = _stack(settings, adapters, dtype)
    net, kind = _merged(net, settings, dtype) if merge else _one_adapter(net, len(adapters))
    moved = difference(before, predictions(net, examples), examples)
    limit = LIMITS[settings.dtype]
    if not moved.mean <= limit and not accept_difference:
        raise ValueError(
            f"{kind}: {moved}, where {limit:g} nats on average are allowed for a run in {settings.dtype}. Nothing was written. "
            + ("Use --dtype float32, which rounds nothing, or --accept-difference." if merge else "Use --accept-difference to have it.")
        )
    if merge:
        tokenizer = settings.load_tokenizer()
        net.generation_config.eos_token_id = end_tokens(net, tokenizer)
        net.save_pretrained(out)
        tokenizer.save_pretrained(out)
    else:
        _save_adapter(net, out)
    exactness = f"{kind}; {moved}."
    write_text(out / "README.md", model_card(run, settings, exactness, "transformers" if merge else "peft"))
    return exactness


def _one_adapter(net: Any, count: int) -> tuple[Any, str]:
    """Combines the network's adapters into one; returns the network and a description of it."""
    parts = list(net.peft_config)
    net.base_model.add_weighted_adapter(parts, [1.0] * len(parts), WHOLE, combination_type="cat")
    net.base_model.set_adapter(WHOLE)
    return net, f"one adapter of rank {net.peft_config[WHOLE].r} from {count}"


def _merged(net: Any, settings: Backbone, dtype: Dtype) -> tuple[Any, str]:
    """Merges the network's adapters into its weights; returns the network and a description of it."""
    kind = f"merged weights in {dtype}" + (f", dequantised from {settings.quantization}" if settings.quantization else "")
    if tied := tied_targets(net):
        untie(net.get_base_model())
        net.config.get_text_config().tie_word_embeddings = net.config.tie_word_embeddings = False
        kind += f", with a head of its own (the run adapts {' and '.join(tied)}, and the base's head is its embeddings)"
    return _one_adapter(net, 0)[0].merge_and_unload(), kind


def _stack(settings: Backbone, adapters: Sequence[str], dtype: Dtype | None = None) -> Any:
    """The base model under all the adapters, all switched on: as it was trained, or with its weights as plain numbers of a dtype.

    They are first what the run computed with: rounded to its own dtype, also where 4-bit weights are dequantised.
    """
    net: Any = dataclasses.replace(settings, gradient_checkpointing=False, adapter=None).load_base().eval()
    if dtype:
        net = net.dequantize() if settings.quantization else net
        # Not `net.to`, which rounds the rotary frequencies, too: they stay float32 in a model that is loaded in another dtype.
        for parameter in net.parameters():
            parameter.data = parameter.data.to(getattr(torch, settings.dtype)).to(getattr(torch, dtype))
    for place, folder in enumerate(adapters):
        net = load_adapter(net, folder, trainable=False, name=f"part{place}")
    net.base_model.set_adapter(list(net.peft_config))
    return net.eval()


def _save_adapter(net: PeftModel, out: Path) -> None:
    net.save_pretrained(str(out), save_embedding_layers=False, selected_adapters=[WHOLE])
    # PEFT gives every adapter but "default" a folder of its own.
    for path in (out / WHOLE).iterdir():
        path.replace(out / path.name)
    (out / WHOLE).rmdir()


def run_backbone(run: Path) -> Backbone:
    """The backbone a run was started with."""
    from unlearn_lightning.models.backbone import Lora

    settings = read_config(run)["model"]["init_args"]["backbone"]
    if settings["model"] is None:
        raise ValueError(f"{run} trains an adapter on random weights that are kept nowhere. Train a base model first, and name it.")
    return Backbone(**{**settings, "scratch": None, "lora": Lora(**settings["lora"])})


def model_card(run: Path, settings: Backbone, exactness: str, library: str) -> str:
    """What the model is: base, path, objective, and the last scores of the run's probes.

    Args:
        run: the run folder.
        settings: the backbone that the run was started with.
        exactness: a sentence on how far the export is from the trained model.
        library: `peft` or `transformers`, the library that loads the export.
    """
    about = read_run(run)
    lines = [
        "---", f"base_model: {settings.model}", f"library_name: {library}", "tags: [unlearning]", "---", "",
        f"# {about['model']} on {about['data']}", "",
        f"Made by unlearn_lightning {about['versions']['unlearn_lightning']}; run `{about['key'][:16]}`, seed {about['seed']}.", "",
        f"- base model: {settings.model}" + (f", trained on its {settings.quantization} weights" if settings.quantization else ""),
        f"- path: {' → '.join(stages(run)) or 'the base model alone'}",
        f"- {'objective' if about['kind'] == 'unlearn' else 'last stage'}: {about['model']} on {about['data']}, {about['steps']} steps",
        f"- date in its prompts, where the chat template prints one: {settings.template_date}",
        f"- export: {exactness}", "",
        "| score at the end | value |", "| --- | ---: |",
    ]  # fmt: skip
    for probe in sorted(path.name for path in (run / "records").glob("*") if path.is_dir()):
        record = last_record(run, probe)
        lines += [f"| {name} | {number(value):.4g} |" for name, value in sorted((record or {"metrics": {}})["metrics"].items())]
    return "\n".join(lines) + "\n"


def stages(run: Path) -> list[str]:
    """The stages' names, first to last, that the run's model was trained on, as far as their run folders are there."""
    if not (run / "run.json").is_file():
        return []
    earlier = run_backbone(run).adapters
    before = [name for folder in earlier[-1:] for name in stages(Path(folder).parent)]
    return before if read_run(run)["kind"] == "unlearn" else [*before, read_run(run)["data"]]
