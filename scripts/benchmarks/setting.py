"""What the benchmarks run on: the built-in world's texts and tokenizer, and models with random weights at a chosen vocabulary."""

from __future__ import annotations

import functools
from typing import Any

import torch
from transformers import LlamaConfig, LlamaForCausalLM

from unlearn_lightning.data import Batch, Encoded, EpochPlan, StageData, collate
from unlearn_lightning.models.backbone import Backbone
from unlearn_lightning.models.scratch import Scratch

PROMPT, RESPONSE = 96, 32
# Tokens with which every prompt begins: as many as Llama-3.2's chat template, with its dates, has around and in the paper's system prompt
# ("You are a helpful assistant."), by our count. Qwen2.5's, with its own system prompt, has 24.
HEADER = 36
# On a GPU machine everything is measured there.
DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
VOCABULARIES = {"32k": 32_000, "128k": 128_256}


@functools.cache
def tokenizer() -> Any:
    """The demo's tokenizer: BPE of 1,024 tokens trained on the world."""
    return Backbone(scratch=Scratch()).load_tokenizer()


def llama(vocabulary: int, layers: int = 8, hidden: int = 512, heads: int = 8, intermediate: int | None = None) -> LlamaForCausalLM:
    """A Llama with random weights and tied embeddings, in float32; 8 layers of 512 units unless said otherwise."""
    config = LlamaConfig(
        vocab_size=vocabulary, hidden_size=hidden, num_hidden_layers=layers, num_attention_heads=heads,
        intermediate_size=intermediate or 8 * hidden // 3, tie_word_embeddings=True, attn_implementation="sdpa",
    )  # fmt: skip
    torch.manual_seed(0)
    return LlamaForCausalLM(config).to(DEVICE)


def paper_like(count: int, prompt: int = PROMPT, response: int = RESPONSE, header: int = 0) -> list[Encoded]:
    """Examples of random tokens; 96 + 32 are about a chat template with its system prompt, a request, and a refusal with its reason.

    Args: header: of the prompt's tokens, those at its beginning that are the same in all examples.
    """
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(10, 1000, (count, prompt + response), generator=generator)
    ids[:, :header] = ids[:1, :header]
    return [Encoded(str(i), row[:prompt], row[prompt:]) for i, row in enumerate(ids.tolist())]


def encoded(stage: StageData, split: Any = "train") -> list[Encoded]:
    """A stage's examples as tokens."""
    return stage.encode(stage.examples(split), tokenizer())


def batches(examples: list[Encoded], size: int, count: int, bucket_batches: int = 100) -> list[Batch]:
    """The first batches of an epoch, as training would get them."""
    plan = EpochPlan(tuple(map(len, examples)), size, size, 1, bucket_batches)
    chosen = plan.batches(seed=0, epoch=0)[:count]
    return [collate([examples[i] for i in indices], tokenizer().pad_token_id).to(DEVICE) for indices in chosen]
