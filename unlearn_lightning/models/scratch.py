"""Small base models built from a config, with a tokenizer trained on texts: everything runs without a model hub.

scratch: {architecture: llama, hidden: 96, layers: 3, intermediate: 256, heads: 4, vocab_size: 1024, corpus: [world]}
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Literal

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from torch import nn
from transformers import AutoModelForCausalLM, LlamaConfig, PreTrainedTokenizerBase, PreTrainedTokenizerFast, Qwen2Config, Qwen2Tokenizer

from unlearn_lightning.sources import world
from unlearn_lightning.sources.quoting import listed
from unlearn_lightning.sources.readers import read_rows

BEGIN, SYSTEM, USER, ASSISTANT, END, PAD = "<|begin|>", "<|system|>", "<|user|>", "<|assistant|>", "<|end|>", "<|pad|>"
CHAT_TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}{{ '<|' + message['role'] + '|>' + message['content'] + '<|end|>' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}"
)


@dataclass(frozen=True)
class Scratch:
    """A small causal LM with random weights.

    Args:
        architecture: llama or qwen2 (the latter has biases on queries, keys and values).
        hidden: width of the residual stream.
        layers: decoder layers.
        intermediate: width of the feed-forward layer.
        heads: attention heads.
        kv_heads: key-value heads; null for as many as heads.
        vocab_size: of the byte-level BPE tokenizer trained on the corpus.
        max_positions: longest sequence, tokens.
        corpus: texts the tokenizer is trained on: `world`, or files / Hub data sets as in `sources.read_rows`.
    """

    architecture: Literal["llama", "qwen2"] = "llama"
    hidden: int = 96
    layers: int = 3
    intermediate: int = 256
    heads: int = 4
    kv_heads: int | None = None
    vocab_size: int = 1024
    max_positions: int = 1024
    corpus: tuple[str, ...] = ("world",)

    def __post_init__(self) -> None:
        object.__setattr__(self, "corpus", tuple(self.corpus))
        for what in ("hidden", "layers", "intermediate", "heads", "kv_heads", "max_positions"):
            value = getattr(self, what)
            if value is not None and value < 1:
                raise ValueError(f"scratch.{what} must be at least 1, got {value}.")
        if self.hidden % self.heads:
            raise ValueError(f"scratch.hidden must be a multiple of scratch.heads, got {self.hidden} and {self.heads}.")
        if self.vocab_size < 300:
            raise ValueError(f"scratch.vocab_size must be at least 300 (256 bytes and the special tokens), got {self.vocab_size}.")


def build_model(scratch: Scratch, tokenizer: PreTrainedTokenizerBase, seed: int) -> nn.Module:
    """A model with random weights that depend on the seed alone, in training mode."""
    config_class = {"llama": LlamaConfig, "qwen2": Qwen2Config}[scratch.architecture]
    config = config_class(
        vocab_size=len(tokenizer),
        hidden_size=scratch.hidden,
        intermediate_size=scratch.intermediate,
        num_hidden_layers=scratch.layers,
        num_attention_heads=scratch.heads,
        num_key_value_heads=scratch.kv_heads or scratch.heads,
        max_position_embeddings=scratch.max_positions,
        tie_word_embeddings=True,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        net: nn.Module = AutoModelForCausalLM.from_config(config, attn_implementation="sdpa")
        return net.train()


def train_tokenizer(scratch: Scratch) -> PreTrainedTokenizerFast:
    """A byte-level BPE tokenizer with a chat template, trained on the corpus.

    transformers reads the tokenizer of any Qwen2 back as its own class, which cuts words by a rule of its own whatever tokenizer.json says,
    so that such a tokenizer is trained with that rule.
    """
    raw = Tokenizer(models.BPE())
    raw.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    if scratch.architecture == "qwen2":
        rule = Qwen2Tokenizer().backend_tokenizer
        raw.normalizer, raw.pre_tokenizer = rule.normalizer, rule.pre_tokenizer
    raw.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=scratch.vocab_size,
        special_tokens=[PAD, BEGIN, SYSTEM, USER, ASSISTANT, END],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    raw.train_from_iterator(corpus_texts(scratch.corpus), trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=raw, bos_token=BEGIN, eos_token=END, pad_token=PAD, chat_template=CHAT_TEMPLATE,
        clean_up_tokenization_spaces=False,
    )  # fmt: skip


def corpus_texts(corpus: tuple[str, ...]) -> list[str]:
    """Every text of the corpus: all text fields of every record.

    Raises:
        ValueError: a source has none.
    """
    texts: list[str] = []
    for source in corpus:
        rows = world_sample() if source == "world" else [row.fields for row in read_rows(source)]
        found = [text for row in rows for text in row.values() if isinstance(text, str)]
        if not found:
            raise ValueError(f"{source}: no record has a text for the tokenizer; the first has the fields {listed(rows[0])}.")
        texts += found
    return texts


def world_sample() -> list[dict[str, str]]:
    """What the built-in world's tokenizer is trained on: some of each generator's training part."""
    return [
        *world.base_text(3000),
        *world.instructions(800),
        *world.author_questions(320),
        *world.word_problems(1600),
        *world.requests(512),
    ]


def corpus_fingerprint(corpus: tuple[str, ...], architecture: str) -> str:
    """A hash of the corpus's content and of the rule by which the tokenizer of this architecture cuts it, for run keys."""
    rule = {"llama": []}.get(architecture, [architecture])
    return hashlib.sha256("\0".join([*corpus_texts(corpus), *rule]).encode()).hexdigest()
