"""Alternate answers to the forget set's prompts, sampled once from the model that unlearning starts from, for AltPO and DPO.

    write_alternates(["runs/tofu"], Sampled(samples=5), Path("alternates.jsonl"))

The file has one record for each pair: {"prompt": ..., "response": ..., "alternate": ..., "sample": 0}. FILE.json beside it says how they
were sampled. Each answer draws from a random stream of its own (inference/generation.py), so that the batch size changes nothing.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from unlearn_lightning.cli.built_model import loaded, starting_model
from unlearn_lightning.cli.measuring import trained_config
from unlearn_lightning.cli.validate_command import command_config, resolved_with
from unlearn_lightning.data import Encoder, Example
from unlearn_lightning.inference.generation import generate
from unlearn_lightning.records import is_finished, write_json, write_text
from unlearn_lightning.runs.content import refuse_changed
from unlearn_lightning.runs.source_hash import named_object

# Where the paper's code ends an answer that goes on with a question of its own.
STOPS = ("Question:", "Q:")


@dataclass(frozen=True)
class Sampled:
    """How alternates are sampled; the numbers are those of Mekala et al. 2025, arXiv:2409.13474.

    Args:
        samples: alternates of each prompt.
        temperature: of the softmax over the whole vocabulary.
        max_new_tokens: longest alternate, tokens.
        seed: of the sampling.
        template: what the model is asked; {prompt} and {response} stand for an example's.
        opening: how its answer begins, no part of the alternate; empty for none.
    """

    samples: int = 5
    temperature: float = 1.0
    max_new_tokens: int = 200
    seed: int = 0
    template: str = "{prompt}"
    opening: str = ""

    def __post_init__(self) -> None:
        if not 0 < self.temperature < math.inf:
            raise ValueError(f"--temperature must be above 0, as alternates are sampled; got {self.temperature}.")
        if "{prompt}" not in self.template:
            raise ValueError(f"--template must contain {{prompt}}, which stands for the example's prompt; got {self.template!r}.")

    def question(self, example: Example) -> str:
        """What the model is asked for an example's alternates."""
        # Both at once, as a prompt may itself hold the word {response}.
        parts = self.template.split("{prompt}")
        return example.prompt.join(part.replace("{response}", example.response) for part in parts)


def alternate(text: str) -> str:
    """An answer up to where the model goes on with a question of its own, without blanks around it."""
    for stop in STOPS:
        text = text.partition(stop)[0]
    return text.strip()


def write_alternates(words: Sequence[str], sampled: Sampled, out: Path, batch_size: int = 64) -> None:
    """Samples the alternates and writes them; a line says how many are empty, or repeat the response that is to be forgotten.

    Args:
        words: a finished run's folder, or a configuration, and settings that change it, as `unlearn validate` takes them.
        sampled: how.
        out: the file; it must not exist, as what objectives read is written once.
        batch_size: answers sampled at once.

    Raises:
        FileNotFoundError: there is no such run.
        ValueError: the file is there, neither run nor configuration is named, or the run is not finished.
    """
    if out.exists():
        raise ValueError(f"{out} is there already, and what an objective reads is written once: delete it, or name another --out.")
    config, run = _asked(words)
    data = named_object(config["data"]["class_path"])(**(config["data"].get("init_args") or {}))
    net, tokenizer, date = loaded(run, True) if run else starting_model(config)
    examples = data.fitting("train", tokenizer)
    if any(not example.prompt.strip() for example in examples):
        raise ValueError(f"{data.stage_name} has texts without prompts, to which there is no alternate answer.")
    encoder: Encoder = data.encoder(tokenizer)
    opening = encoder.response_start_ids(sampled.opening) if sampled.opening else []
    prompts = [[*encoder.prompt_ids(sampled.question(example)), *opening] for example in examples]
    said = generate(net, tokenizer, prompts, sampled.max_new_tokens, sampled.samples, sampled.temperature, sampled.seed, batch_size)
    rows = [
        {"prompt": example.prompt, "response": example.response, "alternate": alternate(text), "sample": number}
        for example, texts in zip(examples, said, strict=True)
        for number, text in enumerate(texts)
    ]
    write_json(out.with_name(f"{out.name}.json"), {**asdict(sampled), "model": _model(config, run), "template_date": date}, indent=1)
    write_text(out, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))
    print(_account(rows, len(examples), sampled, out))


def _asked(words: Sequence[str]) -> tuple[dict[str, Any], Path | None]:
    """The whole configuration that the words of the command say, and the run that they name."""
    if not words:
        raise ValueError(
            "name a finished run, `unlearn alternates RUN --out FILE`, or a configuration, `unlearn alternates -c CONFIG ...`."
        )
    if words[0].startswith("-"):
        return command_config(words), None
    run = Path(words[0])
    trained = trained_config(run)
    if not is_finished(run):
        raise ValueError(f"{run} holds no finished run, so there is no model to ask: the command that began it ends it.")
    refuse_changed(run)
    return resolved_with(trained, words[1:]), run


def _model(config: Mapping[str, Any], run: Path | None) -> Any:
    backbone = config["model"]["init_args"]["backbone"]
    return str(run) if run else {name: backbone[name] for name in ("model", "revision", "adapter")}


def _account(rows: Sequence[Mapping[str, Any]], prompts: int, sampled: Sampled, out: Path) -> str:
    empty = sum(not row["alternate"] for row in rows)
    same = sum(row["alternate"] == row["response"].strip() for row in rows)
    found = f"{out}: {len(rows):,} alternates of {prompts:,} prompts, temperature {sampled.temperature:g}, seed {sampled.seed}."
    if empty:
        found += f" {empty:,} are empty."
    if same:
        found += f" {same:,} are the response that is to be forgotten, word for word: such a pair has no gradient."
    return found
