"""`unlearn export RUN`: a run's model for plain transformers and PEFT, as one adapter or as merged weights, with a model card.

    unlearn export runs/forgotten --out exported
    PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base), "exported")        # needs nothing of this package

A stack of LoRA adapters is one LoRA adapter: its A and B are theirs put side by side, its rank the sum of their ranks. Nothing is lost.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import yaml
from peft import PeftModel

from unlearn_lightning.adapters import load_adapter
from unlearn_lightning.backbone import Backbone
from unlearn_lightning.records import is_finished, last_record, number, read_run, write_text

WHOLE = "whole"


def export(run: Path, out: Path, merge: bool = False) -> str:
    """Writes the exported model and gives a sentence on how exact it is.

    Args:
        run: a finished run folder with an adapter.
        out: folder to write; must not exist or be empty.
        merge: write whole weights in the base model's dtype instead of an adapter. A quantised backbone is dequantised before, because
            merging into 4-bit weights would round the adapter away; so the result is the model that was trained.

    Raises:
        FileNotFoundError: there is no such run, or one of its adapters is gone.
        ValueError: the run is not finished or has no adapter, or `out` holds something.
    """
    if not is_finished(run):
        raise ValueError(f"{run} holds no finished run. `unlearn fit` or `unlearn study` must end it first.")
    if not (run / "adapter").is_dir():
        raise ValueError(f"{run} holds whole weights, not an adapter: {run / 'model'} loads in transformers as it is.")
    if out.exists() and any(out.iterdir()):
        raise ValueError(f"{out} is not empty. Choose another --out.")
    settings = run_backbone(run)
    own = str(run / "adapter")
    # A stage goes on with the last adapter, unlearning puts a new one on top of all.
    adapters = [*(settings.adapters if read_run(run)["kind"] == "unlearn" else settings.adapters[:-1]), own]
    stacked = _stack(settings, adapters, dequantise=False)
    before = logits(stacked)
    net = _stack(settings, adapters, dequantise=True) if merge and settings.quantization else stacked
    del stacked
    parts = list(net.peft_config)
    net.base_model.add_weighted_adapter(parts, [1.0] * len(parts), WHOLE, combination_type="cat")
    net.base_model.set_adapter(WHOLE)
    rank = net.peft_config[WHOLE].r
    if merge:
        net = net.merge_and_unload()
        net.save_pretrained(out)
        settings.load_tokenizer().save_pretrained(out)
    else:
        _save_adapter(net, out)
    error = (logits(net) - before).abs().max().item()
    if merge:
        kind = f"merged weights in {settings.dtype}" + (f", dequantised from {settings.quantization}" if settings.quantization else "")
    else:
        kind = f"one adapter of rank {rank} from {len(adapters)}"
    exactness = f"{kind}; the largest difference of its logits from the stacked model's is {error:.2g}, on a text of 32 tokens."
    write_text(out / "README.md", model_card(run, settings, exactness, "transformers" if merge else "peft"))
    return exactness


def _stack(settings: Backbone, adapters: Sequence[str], dequantise: bool) -> Any:
    """The base model under all the adapters, all switched on: as it was trained, or with its 4-bit or 8-bit weights as numbers again."""
    net: Any = dataclasses.replace(settings, gradient_checkpointing=False, adapter=None).load_base().eval()
    if dequantise:
        net = net.dequantize().to(getattr(torch, settings.dtype))
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
    from unlearn_lightning.backbone import Lora

    settings = yaml.safe_load((run / "config.yaml").read_text(encoding="utf-8"))["model"]["init_args"]["backbone"]
    if settings["model"] is None:
        raise ValueError(f"{run} trains an adapter on random weights that are kept nowhere. Train a base model first, and name it.")
    return Backbone(**{**settings, "scratch": None, "lora": Lora(**settings["lora"])})


@torch.no_grad()
def logits(net: Any) -> torch.Tensor:
    """(1, 32, V) the network's logits on a fixed text, float32."""
    tokens = torch.arange(32, device=net.device)[None] % net.config.vocab_size
    return net(input_ids=tokens).logits.float().cpu()


def model_card(run: Path, settings: Backbone, exactness: str, library: str) -> str:
    """What the model is: base, path, objective, and the last scores of the run's probes."""
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
