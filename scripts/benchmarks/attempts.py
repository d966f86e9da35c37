"""Five sampled attempts per GSM8K problem against lm-evaluation-harness' HF backend (`pip install lm_eval`), with as many rows at once.

Random weights would never end a response, so both ways get a model whose end-of-turn probability after t tokens is that of GSM8K's
real solutions (how many of those that reach t tokens end there), while all other tokens keep the shares the weights give them.
"""

from __future__ import annotations

import os
from typing import Any

import torch
from torch import Tensor
from transformers import LlamaForCausalLM

from scripts.benchmarks.measure import Result, compared, timed
from scripts.benchmarks.setting import DEVICE, llama
from unlearn_lightning.data import MathStage
from unlearn_lightning.inference import generation
from unlearn_lightning.models.backbone import Backbone
from unlearn_lightning.models.scratch import Scratch

PROMPT, LONGEST, ATTEMPTS = 96, 256, 5


def solution_lengths() -> tuple[str, list[int]]:
    """How many tokens solutions have: GSM8K's below UNLEARN_DATA with a BPE of 8,192 trained on it, else the built-in word problems'."""
    real = bool(os.environ.get("UNLEARN_DATA"))
    stage = MathStage(source="files" if real else "world", held_out_examples=400)
    tokenizer = Backbone(scratch=Scratch(vocab_size=8192)).load_tokenizer()
    return "GSM8K" if real else "built-in", [len(e.response_ids) for e in stage.encode(stage.examples("held_out"), tokenizer)]


class Ending(LlamaForCausalLM):
    """A Llama that ends its response after t tokens as often as given; prompts have PROMPT tokens."""

    hazard: Tensor

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """The model's own, with the end token's logit set."""
        output = super().forward(*args, **kwargs)
        positions = kwargs.get("position_ids")
        if positions is None:
            positions = torch.zeros(1, 1, dtype=torch.long, device=output.logits.device)
        said = (positions[:, -1] + 1 - PROMPT).clamp(min=0, max=len(self.hazard) - 1)
        logits = output.logits[:, -1].float()
        logits[:, self.end] = -torch.inf
        chance = self.hazard[said].expand(len(logits))
        logits[:, self.end] = logits.logsumexp(-1) + chance.log() - (1 - chance).log()
        output.logits = logits[:, None]
        return output


def ending_model(vocabulary: int, lengths: list[int]) -> tuple[Any, int]:
    """The model, and its end token."""
    net = llama(vocabulary)
    net.__class__ = Ending
    capped = torch.tensor([min(n, LONGEST) for n in lengths]).bincount(minlength=LONGEST + 1).float()
    reach = capped.flip(0).cumsum(0).flip(0)
    net.hazard = (capped[1:] / reach[1:].clamp(min=1)).clamp(1e-9, 1 - 1e-6).to(DEVICE)
    net.end = 2
    net.generation_config.eos_token_id = net.end
    return net.eval(), net.end


def harness(net: Any, tokenizer: Any, rows: int) -> Any:
    """lm-evaluation-harness' HF backend around the same model."""
    from lm_eval.models.huggingface import HFLM

    return HFLM(pretrained=net, tokenizer=tokenizer, batch_size=rows, max_length=1024, device=str(DEVICE))


def attempts(problems: int = 16, rows: int = 40, vocabulary: int = 32_000, repeats: int = 1) -> list[Result]:
    """Prompts of 96 tokens, at most 256 new ones, temperature 1."""
    from lm_eval.api.instance import Instance

    source, lengths = solution_lengths()
    net, end = ending_model(vocabulary, lengths)
    tokenizer = Backbone(scratch=Scratch()).load_tokenizer()
    generator = torch.Generator().manual_seed(0)
    prompts = [torch.randint(300, 1000, (PROMPT,), generator=generator).tolist() for _ in range(problems)]
    how = generation.Sampling(LONGEST, ATTEMPTS, 1.0, 0, frozenset({end}))
    backend = harness(net, tokenizer, rows)
    # The harness starts from text; its tokens are made the same.
    backend.tok_batch_encode = lambda strings, **_: (
        torch.tensor([prompts[int(s)] for s in strings]),
        torch.ones(len(strings), PROMPT, dtype=torch.long),
    )
    settings = {"until": ["\n\n\n\n"], "do_sample": True, "temperature": 1.0, "top_k": 0, "max_gen_toks": LONGEST}
    counts: dict[str, list[int]] = {"ours": [], "theirs": []}

    def ours() -> None:
        with torch.no_grad():
            counts["ours"] = [len(said) for _, said in generation._continuous(net, prompts, how, rows)]

    def theirs() -> None:
        asked = [
            Instance("generate_until", {}, (str(i), dict(settings)), i * ATTEMPTS + k) for i in range(problems) for k in range(ATTEMPTS)
        ]  # fmt: skip
        backend.generate_until(asked, disable_tqdm=True)

    times = timed({"ours": ours, "theirs": theirs}, repeats, warm_up=False)
    mean = sum(counts["ours"]) / len(counts["ours"])
    case = f"{problems} problems, {rows} rows at once, lengths of {source} solutions (mean {mean:.0f} tokens)"
    return [
        compared(
            "GSM8K, 5 sampled attempts per problem", "lm-evaluation-harness' HF backend at equal rows", case, times["ours"],
            times["theirs"], 2.5,
        )
    ]  # fmt: skip
