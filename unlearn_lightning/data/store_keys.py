"""Which sources' tokens are kept, under which digest, and how they are made: `StageData` asks, token_store.py keeps.

token_key(stage, "train", tokenizer)        # None where nothing is kept: small files, the built-in world, the Hub, classes of others

The digest covers the content of the source and not its place; the tokenizer, chat template and settings; and the code that reads them.
"""

from __future__ import annotations

import functools
import hashlib
import inspect
import json
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol

import tokenizers
import transformers
from lightning.pytorch.utilities.rank_zero import rank_zero_only
from tqdm import tqdm

from unlearn_lightning.data import token_store
from unlearn_lightning.data.examples import AT_ONCE, Encoded, Example, cut_in
from unlearn_lightning.data.token_workers import in_order
from unlearn_lightning.sources import readers
from unlearn_lightning.sources.readers import SourceRecord

PACKAGE = __name__.partition(".")[0]
# Settings of a stage that neither its texts nor their tokens depend on, and the places of sources, whose content counts instead.
NEUTRAL = {"batch_size", "micro_batch_size", "bucket_batches", "seed", "num_workers", "source", "held_out_source", "data_root"}
# Settings of tokens alone.
OF_TOKENS = {"max_length", "skip_long_prompts", "system_prompt"}
ANY_USE = "{use}"
"""Stands in a kept line for what is done with the examples, which differs from run to run."""
# The code that makes texts and tokens.
CODE = (f"{PACKAGE}.data.", f"{PACKAGE}.sources.", f"{PACKAGE}.inference.chat_format", f"{PACKAGE}.inference.batch_tokens")


class Stage(Protocol):
    """What is asked of a stage here."""

    skip_long_prompts: bool
    source: str
    max_length: int

    def rows(self, split: Any) -> Sequence[SourceRecord]:
        """The records of a split."""

    def example(self, name: str, row: SourceRecord) -> Example:
        """The example of a record."""

    def location(self) -> str:
        """Where the source lies."""

    def tokens_of(self, examples: Sequence[Example], tokenizer: Any) -> list[Encoded]:
        """The tokens of examples."""

    def account(self, too_long: int = 0, use: str = "") -> str:
        """How many examples there are of each kind."""


def text_key(stage: Any, split: str) -> str | None:
    """A digest of all that decides the texts of a split; None where they are not kept."""
    places = _places(stage, split)
    if places is None:
        return None
    return _digest([places, split, _settings(stage, OF_TOKENS), _code(type(stage))])


def token_key(stage: Any, split: str, tokenizer: Any) -> str | None:
    """A digest of all that decides the tokens of a split; None where they are not kept."""
    places, words = _places(stage, split), _tokenizer(tokenizer)
    if places is None or words is None:
        return None
    versions = [tokenizers.__version__, transformers.__version__, token_store.FORMAT]
    return _digest([places, split, _settings(stage, set()), _code(type(stage)), words, versions])


def kept_examples(stage: Any, split: Any, tokenizer: Any) -> token_store.StoredExamples | None:
    """The examples of a split as kept tokens, which are made where they are not there; None where nothing is kept."""
    key = token_key(stage, split, tokenizer)
    if key is None:
        return None
    making = Making(stage, split, tokenizer)
    return token_store.stored(key, f"{stage.stage_name} ({split})", making.chunks, making.facts)


class Making:
    """Makes the tokens of a split, some at a time, and counts what is told of them.

    Args:
        stage: whose split it is.
        split: train or held_out.
        tokenizer: with a chat template.
    """

    def __init__(self, stage: Any, split: Any, tokenizer: Any) -> None:
        self.stage, self.split, self.tokenizer = stage, split, tokenizer
        self.count = dict.fromkeys(("rows", "long", "cut", "seconds_cut"), 0)

    def chunks(self) -> Iterator[Any]:
        """All tokens as tables of Arrow's, with a bar on a terminal that shows how far they are."""
        rows = len(self.stage.rows(self.split))
        self.count["rows"] = rows
        hidden = None if getattr(rank_zero_only, "rank", None) in (None, 0) else True
        what = f"{self.stage.stage_name} ({self.split}): tokens"
        with tqdm(total=rows, desc=what, unit=" examples", disable=hidden, leave=False) as bar:
            for table, count in in_order(self._piece, range(0, rows, AT_ONCE)):
                for name, more in count.items():
                    self.count[name] += more
                bar.update(min(AT_ONCE, rows - int(bar.n)))
                yield table

    def _piece(self, start: int) -> tuple[Any, dict[str, int]]:
        """The tokens of some examples, and what is told of them."""
        rows, name = self.stage.rows(self.split)[start : start + AT_ONCE], f"{self.stage.stage_name}-{self.split}"
        examples = [self.stage.example(f"{name}-{i:05d}", row) for i, row in enumerate(rows, start)]
        kept = self.stage._fitting(examples, self.tokenizer)
        encoded: list[Encoded] = self.stage.tokens_of(kept, self.tokenizer)
        seconds = [one.alternative for one in encoded if one.alternative is not None]
        count = {"long": len(examples) - len(kept), "cut": cut_in(encoded), "seconds_cut": cut_in(seconds)}
        return token_store.table(encoded), count

    def facts(self) -> dict[str, Any]:
        """What is told of the tokens whenever they are read."""
        return {**self.count, "account": self.stage.account(self.count["long"], ANY_USE) if self.split == "train" else ""}


def _places(stage: Any, split: str) -> list[str] | None:
    """The contents of the source and of what is held out; None where the former is small or no file, or the class not ours."""
    if stage.source in ("world", "hub") or stage.source.startswith(readers.HUB) or not _is_ours(type(stage)):
        return None
    source = Path(stage.location())
    if not source.is_file() or source.stat().st_size < readers.LARGE:
        return None
    if stage._is_split_by_prompt:
        return [_content(source)]
    other = Path(stage._held_out_place[0])
    return [_content(source), _content(other) if other.is_file() else str(other)]


def _is_ours(cls: type) -> bool:
    # A class of somebody else's may read anything that no digest knows of.
    return cls.__module__.partition(".")[0] == PACKAGE


def _settings(stage: Any, without: set[str]) -> dict[str, str]:
    names = inspect.signature(type(stage).__init__).parameters.keys() - NEUTRAL - without
    own = {name: repr(getattr(stage, name, None)) for name in sorted(names)}
    kept = {field: value for field, value in vars(stage.record_format).items() if field not in without or stage.record_format.system_prompt}
    return {**own, "record_format": repr(sorted(kept.items(), key=lambda item: item[0])), "source": str(stage._is_split_by_prompt)}


def _code(cls: type) -> list[str]:
    modules = {name for name in sys.modules if name.startswith(CODE)} | {one.__module__ for one in cls.__mro__ if _is_ours(one)}
    files = (getattr(sys.modules[name], "__file__", None) for name in sorted(modules))
    return [_content(Path(file)) for file in files if file]


def _content(path: Path) -> str:
    status = path.stat()
    return _file_digest(str(path), status.st_size, status.st_mtime_ns)


@functools.lru_cache(maxsize=256)
def _file_digest(path: str, size: int, mtime_ns: int) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@functools.lru_cache(maxsize=8)
def _tokenizer(tokenizer: Any) -> str | None:
    """A digest of a fast tokenizer and of its chat template; None for another, which has no one text that says all."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:
        return None
    said = [
        type(tokenizer).__name__,
        tokenizer.chat_template,
        repr(getattr(tokenizer, "chat_settings", None)),
        tokenizer.special_tokens_map,
    ]
    return _digest([hashlib.sha256(backend.to_str().encode()).hexdigest(), *map(repr, said)])


def _digest(content: Any) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:32]
