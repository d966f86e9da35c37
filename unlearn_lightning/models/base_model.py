"""A base model's weights as transformers reads them: all of them, of the right shape, and from safetensors alone.

net = load_pretrained("meta-llama/Llama-3.2-1B", None, dtype=torch.bfloat16)

transformers fills a tensor that the files lack with random numbers, and says so in a log at most. What is quantised, and how,
is decided in backbone.py, which hands `quantization_config` on to here.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from transformers import AutoConfig, AutoModelForCausalLM
from transformers.utils import SAFE_WEIGHTS_INDEX_NAME, cached_file
from transformers.utils import logging as transformers_logging

from unlearn_lightning.models.reading import Unreadable, reading, refuse_adapter

# An error names at most this number of tensors.
NAMED = 3
SAFE = ".safetensors"


def load_pretrained(model: str, revision: str | None, **settings: Any) -> Any:
    """Loads the causal language model in a local folder or on the Hub.

    Args:
        model: a local folder, or the name of a repository on the Hub.
        revision: a branch, tag or commit of that repository; null for the newest.
        settings: further settings of transformers' `from_pretrained`.

    Raises:
        ValueError: tensors are missing, unexpected or of another shape than config.json says, or files are none of safetensors.
    """
    with reading(model), quiet():
        _check_files(model, revision)
        read: Any = AutoModelForCausalLM.from_pretrained(
            model, revision=revision, use_safetensors=True, trust_remote_code=False, output_loading_info=True,
            ignore_mismatched_sizes=True, **settings,
        )  # fmt: skip
    net, report = read
    shapes = (f"{name}, {tuple(found)} instead of {tuple(expected)}" for name, found, expected in report["mismatched_keys"])
    wrong = {"missing": report["missing_keys"], "unexpected": report["unexpected_keys"], "of another shape": shapes}
    if said := differences(wrong):
        raise ValueError(
            f"The weights of the base model {model} do not fit its config.json: {said}. Nothing is made up for them: fetch or save the "
            "model again, or set backbone.model to another."
        )
    return net


def differences(kinds: dict[str, Iterable[str]]) -> str:
    """Kinds of wrong tensors in words: how many there are of each, and the first few's names; empty where there are none."""
    parts = []
    for kind, tensors in kinds.items():
        names = sorted(tensors)
        if names:
            more = ", ..." if len(names) > NAMED else ""
            parts.append(f"{len(names)} {kind} ({', '.join(names[:NAMED])}{more})")
    return "; ".join(parts)


def _check_files(model: str, revision: str | None) -> None:
    """Refuses what would lead transformers to another file than safetensors, which it reads as a pickle, or to an adapter."""
    refuse_adapter(model)
    named = getattr(AutoConfig.from_pretrained(model, revision=revision, trust_remote_code=False), "transformers_weights", None)
    index_name = named or SAFE_WEIGHTS_INDEX_NAME
    files = {"config.json": {named} if named and not named.endswith(f"{SAFE}.index.json") else set()}
    index = cached_file(
        model, index_name, revision=revision, _raise_exceptions_for_missing_entries=False, _raise_exceptions_for_connection_errors=False
    )
    if index is not None and str(index).endswith(".json"):
        try:
            files[index_name] = set(json.loads(Path(index).read_text(encoding="utf-8"))["weight_map"].values())
        except (ValueError, KeyError, AttributeError, TypeError) as error:
            raise Unreadable(f"{index} is no index of weights ({type(error).__name__}): fetch or save the model again.") from error
    for source, weights in files.items():
        if other := sorted(str(name) for name in weights if not str(name).endswith(SAFE)):
            raise Unreadable(
                f"{source} of {model} names {other[0]}, which is not a {SAFE} file. Other formats are pickles, which are never read: "
                "convert it."
            )


@contextmanager
def quiet() -> Iterator[None]:
    """Context in which transformers shows neither warnings nor progress bars."""
    level, bars = transformers_logging.get_verbosity(), transformers_logging.is_progress_bar_enabled()
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    try:
        yield
    finally:
        transformers_logging.set_verbosity(level)
        if bars:
            transformers_logging.enable_progress_bar()
