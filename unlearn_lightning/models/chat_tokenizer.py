"""Loads a backbone's tokenizer: with a chat template, a padding token, and the settings with which `ChatFormat` renders.

tokenizer = load_tokenizer(None, "meta-llama/Llama-3.2-1B", None, "meta-llama/Llama-3.2-1B-Instruct", None, "26 Jul 2024")
"""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

from huggingface_hub import try_to_load_from_cache
from lightning.pytorch.utilities.rank_zero import rank_zero_warn
from tokenizers import Tokenizer
from transformers import AutoConfig, AutoTokenizer, GenerationConfig, PreTrainedTokenizerBase

from unlearn_lightning.inference.chat_format import ChatSettings
from unlearn_lightning.models.reading import REMEDY, Unreadable, check_file, reading, refuse_adapter
from unlearn_lightning.models.scratch import Scratch, train_tokenizer

TOKENIZER_FILES = ("tokenizer*", "vocab*", "merges.txt", "*.model", "*.tiktoken", "tekken.json")
# What the words, numbers and marks of ordinary text become tells one tokenizer from another.
PLAIN = "Ann's 12 cards cost 340 euros; she didn't sell them in 1987."


@functools.lru_cache(maxsize=8)
def load_tokenizer(
    tokenizer: str | None, model: str | None, scratch: Scratch | None, template_from: str | None, revision: str | None, date: str
) -> PreTrainedTokenizerBase:
    """The tokenizer that a backbone's settings name; cached per process, so treat it as read-only.

    Args:
        tokenizer: Hub id or folder; null for the model's own.
        model: Hub id or folder of the base model; null to train a tokenizer for `scratch`.
        scratch: the model that is built from a config.
        template_from: whose chat template is used; null for the tokenizer's own.
        revision: of the Hub model.
        date: what the chat template prints as today's.

    Raises:
        FileNotFoundError: a folder holds no tokenizer.
        ValueError: it has no chat template.
    """
    name = tokenizer or model
    if name is None:
        assert scratch is not None
        loaded: Any = train_tokenizer(scratch)
    else:
        if not tokenizer:
            refuse_adapter(name)
        _refuse_no_tokenizer(name)
        with reading(name):
            loaded = AutoTokenizer.from_pretrained(name, revision=None if tokenizer else revision, trust_remote_code=False)
            # Settings of another type than theirs come to light only here.
            loaded("a")
            _tell_other_tokens(name, None if tokenizer else revision, loaded)
    if template_from is not None:
        with reading(template_from):
            loaded.chat_template = AutoTokenizer.from_pretrained(template_from, trust_remote_code=False).chat_template
    if not loaded.chat_template:
        raise ValueError(
            f"The tokenizer of {name} has no chat template. Set backbone.chat_template_from to its instruct sibling, "
            "for example meta-llama/Llama-3.2-1B-Instruct for meta-llama/Llama-3.2-1B."
        )
    if loaded.pad_token_id is None:
        loaded.pad_token = loaded.eos_token
    loaded.chat_settings = ChatSettings(date, template_from or name or "the scratch model", _generation_ends(model, revision))
    complete: PreTrainedTokenizerBase = loaded
    return complete


def _refuse_no_tokenizer(name: str) -> None:
    """Because an empty tokenizer is made of a folder that has none."""
    folder = Path(name)
    if folder.is_dir() and (folder / "config.json").is_file() and not any(any(folder.glob(file)) for file in TOKENIZER_FILES):
        raise FileNotFoundError(
            f"{name} holds a model and no tokenizer (tokenizer.json or the like). Save it there with the tokenizer's save_pretrained, or "
            "name another folder or a Hub id in backbone.tokenizer."
        )


def _tell_other_tokens(name: str, revision: str | None, loaded: Any) -> None:
    """Warns where transformers' class for this architecture cuts plain text otherwise than the tokenizer's own file does.

    It gives every Qwen2 the word rule of the published ones, whatever tokenizer.json says, and a model that was trained with the file's
    tokens then reads others.
    """
    file: Any = Path(name) / "tokenizer.json" if Path(name).is_dir() else try_to_load_from_cache(name, "tokenizer.json", revision=revision)
    if type(loaded).__name__ == "TokenizersBackend" or not isinstance(file, str | Path) or not Path(file).is_file():
        return
    own = Tokenizer.from_file(str(file)).encode(PLAIN, add_special_tokens=False).tokens
    read = loaded.convert_ids_to_tokens(loaded(PLAIN, add_special_tokens=False)["input_ids"])
    if read == own:
        return
    at = next((i for i, (ours, theirs) in enumerate(zip(own, read, strict=False)) if ours != theirs), 0)
    rank_zero_warn(
        f"The tokenizer of {name}: transformers reads it as {type(loaded).__name__}, which cuts {PLAIN!r} otherwise than its "
        f"tokenizer.json does ({' '.join(read[at : at + 4])} for {' '.join(own[at : at + 4])}), and its tokens are taken. If the model "
        "was trained with the file's, copy the tokenizer's files into a folder without config.json and name it as backbone.tokenizer."
    )


def _generation_ends(model: str | None, revision: str | None) -> tuple[int, ...]:
    """The tokens that end the model's own generation, by its generation_config.json or else config.json; none where it has neither."""
    if model is None:
        return ()
    for kind, file in ((GenerationConfig, "generation_config.json"), (AutoConfig, "config.json")):
        check_file(Path(model) / file)
        try:
            ends = getattr(kind.from_pretrained(model, revision=revision or "main"), "eos_token_id", None)
        except (OSError, ValueError):
            continue
        except Exception as error:
            raise Unreadable(f"{Path(model) / file} has a value of a wrong kind ({type(error).__name__}: {error}): {REMEDY}.") from error
        return tuple(ends) if isinstance(ends, list) else () if ends is None else (ends,)
    return ()
