"""NPO steps of an 8B-shaped model with random weights on one GPU, in NF4 and in bfloat16: share of the bf16 peak, memory, tokens/s.

Without a GPU the same code runs at a tiny size, to show that it works; its numbers then say nothing about a GPU.
"""

from __future__ import annotations

import copy
import gc
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from transformers import LlamaConfig, LlamaForCausalLM

from scripts.benchmarks.measure import Result, peak_bytes, timed
from scripts.benchmarks.setting import HEADER, paper_like, tokenizer
from unlearn_lightning.data import Batch, collate
from unlearn_lightning.inference.likelihood import token_log_likelihood
from unlearn_lightning.models.adapters import reference_mode
from unlearn_lightning.models.backbone import Backbone, Lora
from unlearn_lightning.models.flops import Matrices, peak_flops
from unlearn_lightning.objectives.npo import npo_loss

GOAL = 0.40
EIGHT_B = {"hidden_size": 4096, "num_hidden_layers": 32, "intermediate_size": 14336, "num_attention_heads": 32, "num_key_value_heads": 8}
TINY = {"hidden_size": 64, "num_hidden_layers": 2, "intermediate_size": 128, "num_attention_heads": 4, "num_key_value_heads": 2}


def random_model(folder: Path, shape: dict[str, int], vocabulary: int) -> str:
    """Writes a model with random bfloat16 weights and the demo's tokenizer; gives its folder."""
    config = LlamaConfig(
        **shape, vocab_size=vocabulary, tie_word_embeddings=False, rope_parameters={"rope_type": "default", "rope_theta": 5e5}
    )
    with torch.device("cuda" if torch.cuda.is_available() else "cpu"):
        LlamaForCausalLM(config).to(torch.bfloat16).save_pretrained(folder)
    tokenizer().save_pretrained(folder)
    return str(folder)


class TimedStep:
    """One NPO step of a backbone."""

    def __init__(self, backbone: Backbone, device: torch.device) -> None:
        self.net: Any = backbone.load_for_unlearning().to(device)
        self.device, self.cross_entropy = device, backbone.cross_entropy
        self.optimizer = torch.optim.AdamW([p for p in self.net.parameters() if p.requires_grad], lr=1e-5)

    def log_lik(self, batch: Batch) -> torch.Tensor:
        """(B,) nats."""
        return token_log_likelihood(self.net, batch.input_ids, batch.attention_mask, batch.response_mask, self.cross_entropy).sum(-1)

    def __call__(self, batches: Iterable[Batch]) -> None:
        """Takes one optimizer step of NPO whose gradient is the sum over these micro-batches."""
        self.optimizer.zero_grad()
        with torch.autocast(self.device.type, torch.bfloat16):
            for batch in batches:
                with reference_mode(self.net):
                    reference = self.log_lik(batch)
                npo_loss(self.log_lik(batch), reference, 0.5).mean().backward()
        self.optimizer.step()


def gpu(rows: int = 16, micro_batches: int = 4, repeats: int = 3) -> list[Result]:
    """Micro-batches of 16 examples of 96 + 32 tokens, 4 a step, LoRA of rank 8 on all linear layers (the paper's for 8B).

    Without shortcuts, whose savings would count as done in the share of the peak; one way has them.
    """
    on_gpu = torch.cuda.is_available()
    device = torch.device("cuda" if on_gpu else "cpu")
    shape, vocabulary = (EIGHT_B, 128_256) if on_gpu else (TINY, 1024)
    batches = [collate(paper_like(rows if on_gpu else 2, header=HEADER), 0).to(device)] * micro_batches
    peak, found = peak_flops(device, torch.bfloat16), []
    with tempfile.TemporaryDirectory() as folder:
        name = random_model(Path(folder), shape, vocabulary)
        plain = Backbone(model=name, dtype="bfloat16", lora=Lora(8, 16), shortcuts=False)
        ways: dict[str, dict[str, Any]] = {"bf16": {}, "bf16, shortcuts": {"shortcuts": True}, "nf4": {"quantization": "nf4"}}
        if on_gpu:
            ways |= {
                "bf16, gradient checkpointing": {"gradient_checkpointing": True},
                "bf16, chunked": {"cross_entropy": "chunked"},
                "bf16, liger": {"cross_entropy": "liger"},
                "bf16, compiled": {"compile": "inductor"},
            }
        for way, settings in ways.items():
            # The last way's model has cycles, which would keep it beside this one's.
            gc.collect()
            try:
                found += _measured(way, TimedStep(_with(plain, settings), device), batches, peak, repeats, on_gpu)
            except (RuntimeError, ImportError) as error:
                print(f"{way}: skipped, {error}")
    return found


def _with(backbone: Backbone, settings: dict[str, Any]) -> Backbone:
    changed = copy.copy(backbone)
    for name, value in settings.items():
        object.__setattr__(changed, name, value)
    return changed


def _measured(way: str, step: TimedStep, batches: list[Batch], peak: float | None, repeats: int, on_gpu: bool) -> list[Result]:
    # On a GPU also what bitsandbytes keeps beside its weights.
    weights = torch.cuda.memory_allocated() if on_gpu else sum(p.numel() * p.element_size() for p in step.net.parameters())
    memory = peak_bytes(lambda: step(batches))
    seconds = timed({"ours": lambda: step(batches)}, repeats)["ours"]
    tokens = sum(batch.tokens for batch in batches)
    work = sum(Matrices.of(step.net).training_flops(batch.tokens, batch.response_tokens, reference=True) for batch in batches)
    case = f"{'8B shape' if on_gpu else 'tiny shape on a CPU'}, {way}"
    lines = [
        Result("NPO step", "", case, "tokens/s", tokens / seconds, None, tokens / seconds),
        Result("NPO step, weights and extra memory", "", case, "GiB", (weights + memory) / 2**30, None, (weights + memory) / 2**30),
    ]
    if peak:
        share = work / seconds / peak
        lines.append(Result("NPO step, share of the bf16 peak", "", case, "", share, None, share, GOAL if on_gpu else None))
    return lines
