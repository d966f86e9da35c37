"""The shapes of the models that configs/backbones names: public facts, for estimates where a model's config.json cannot be read.

architecture("meta-llama/Llama-3.2-1B")      # a LlamaConfig with the numbers of its config.json that decide sizes
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from transformers import Gemma3Config, Gemma3TextConfig, LlamaConfig, Olmo2Config, Phi3Config, Qwen2Config, Qwen3Config

# Gemma-3's encoder of images, which comes along where only texts are trained on.
SIGLIP = {
    "hidden_size": 1152, "intermediate_size": 4304, "num_hidden_layers": 27, "num_attention_heads": 16, "image_size": 896, "patch_size": 14,
    "vision_use_head": False,
}  # fmt: skip


def _gemma3_with_images(**text: Any) -> Gemma3Config:
    return Gemma3Config(text_config=text, vision_config=SIGLIP, tie_word_embeddings=text["tie_word_embeddings"])


# Public facts: configuration, hidden, layers, intermediate, heads, key-value heads, vocabulary, tied embeddings.
ARCHITECTURES: dict[str, tuple[Callable[..., Any], int, int, int, int, int, int, bool]] = {
    "meta-llama/Llama-3.2-1B": (LlamaConfig, 2048, 16, 8192, 32, 8, 128256, True),
    "meta-llama/Llama-3.2-3B": (LlamaConfig, 3072, 28, 8192, 24, 8, 128256, True),
    "meta-llama/Llama-3.1-8B": (LlamaConfig, 4096, 32, 14336, 32, 8, 128256, False),
    "meta-llama/Llama-3.1-70B": (LlamaConfig, 8192, 80, 28672, 64, 8, 128256, False),
    "meta-llama/Llama-2-13b-hf": (LlamaConfig, 5120, 40, 13824, 40, 40, 32000, False),
    "Qwen/Qwen2.5-1.5B": (Qwen2Config, 1536, 28, 8960, 12, 2, 151936, True),
    "Qwen/Qwen2.5-14B": (Qwen2Config, 5120, 48, 13824, 40, 8, 152064, False),
    "Qwen/Qwen3-0.6B-Base": (Qwen3Config, 1024, 28, 3072, 16, 8, 151936, True),
    "Qwen/Qwen3-1.7B-Base": (Qwen3Config, 2048, 28, 6144, 16, 8, 151936, True),
    "Qwen/Qwen3-8B-Base": (Qwen3Config, 4096, 36, 12288, 32, 8, 151936, False),
    "google/gemma-3-1b-pt": (Gemma3TextConfig, 1152, 26, 6912, 4, 1, 262144, True),
    "google/gemma-3-4b-pt": (_gemma3_with_images, 2560, 34, 10240, 8, 4, 262208, True),
    "microsoft/Phi-3.5-mini-instruct": (Phi3Config, 3072, 32, 8192, 32, 32, 32064, False),
    "microsoft/Phi-4-mini-instruct": (Phi3Config, 3072, 32, 8192, 24, 8, 200064, True),
    "allenai/OLMo-2-0425-1B": (Olmo2Config, 2048, 16, 8192, 16, 16, 100352, False),
    "allenai/OLMo-2-1124-7B": (Olmo2Config, 4096, 32, 11008, 32, 32, 100352, False),
    "HuggingFaceTB/SmolLM2-135M-Instruct": (LlamaConfig, 576, 30, 1536, 9, 3, 49152, True),
    "HuggingFaceTB/SmolLM2-360M-Instruct": (LlamaConfig, 960, 32, 2560, 15, 5, 49152, True),
    "HuggingFaceTB/SmolLM2-1.7B-Instruct": (LlamaConfig, 2048, 24, 8192, 32, 32, 49152, True),
}


def architecture(name: str) -> Any:
    """The transformers configuration of a model of the table.

    Raises:
        KeyError: it is not in the table.
    """
    config, hidden, layers, intermediate, heads, kv_heads, vocabulary, tied = ARCHITECTURES[name]
    return config(
        hidden_size=hidden, num_hidden_layers=layers, intermediate_size=intermediate, num_attention_heads=heads,
        num_key_value_heads=kv_heads, vocab_size=vocabulary, tie_word_embeddings=tied,
    )  # fmt: skip
