"""What a probe, or any other callback, may ask the model that is trained: likelihoods, scores of phrases, generated texts.

    with torch.no_grad(), pl_module.inference():            # `Probe.predict` is called inside of this already
        scores = pl_module.score_candidates(prompts, phrases)
        texts = pl_module.generate(prompts, max_new_tokens=64)

Prompts and phrases are token lists (`Encoded.prompt_ids`, `Encoder.response_start_ids`), batches come from `collate`. How the network
computes an answer, and in which shards it lies, is nobody else's business.
"""

from __future__ import annotations

import unlearn_lightning.inference.hub_kernels  # isort: skip  # noqa: F401

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import lightning.pytorch as pl
import torch
from peft import PeftModel
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from unlearn_lightning.data import Batch, Encoded, collate
from unlearn_lightning.inference import generation, likelihood, multiple_choice
from unlearn_lightning.models.adapters import eval_mode
from unlearn_lightning.models.backbone import Backbone
from unlearn_lightning.models.flops import Matrices
from unlearn_lightning.models.other_adapters import other_adapters
from unlearn_lightning.models.sharding import lockstep


class Queries(pl.LightningModule):
    """The public questions to a causal language model; `CausalLMModule` gives it its backbone and its network."""

    backbone: Backbone
    net: Any

    @property
    def tokenizer(self) -> PreTrainedTokenizerBase:
        """The backbone's tokenizer."""
        return self.backbone.load_tokenizer()

    @contextmanager
    def outcome(self) -> Iterator[None]:
        """Inside of this block the network is what the run would end with now: what is measured, and what is saved.

        It is the trained network itself, unless an objective makes something else of it. All processes of a run must enter it.
        """
        yield

    @contextmanager
    def inference(self) -> Iterator[None]:
        """Measures inside of this block: no gradients, no dropout, in the trainer's precision; the former mode comes back afterwards.

        Processes may ask different numbers of questions inside of it, also where the network lies in shards: who is done waits for the
        others at the block's end. All processes of a run must enter it.
        """
        with torch.no_grad(), self.outcome(), eval_mode(self.net), self.trainer.precision_plugin.forward_context(), lockstep(self.net):
            yield

    def token_log_likelihood(self, batch: Batch) -> Tensor:
        """(B, T) log p of each response token, nats; 0 elsewhere."""
        return likelihood.token_log_likelihood(
            self.net, batch.input_ids, batch.attention_mask, batch.response_mask, self.backbone.cross_entropy
        )

    def response_log_likelihood(self, batch: Batch) -> Tensor:
        """(B,) log p of each response, nats, summed over its tokens."""
        return self.token_log_likelihood(batch).sum(-1)

    def response_logits(self, batch: Batch) -> Tensor:
        """(N, V) the logits that predict the batch's N response tokens, row by row."""
        return likelihood.response_logits(self.net, batch.input_ids, batch.attention_mask, batch.response_mask)

    @contextmanager
    def other_logits(self, backbone: Mapping[str, Any]) -> Iterator[Callable[[Batch], Tensor]]:
        """What gives the `response_logits` of another run's model inside of this block.

        With LoRA they are those of this network with the other run's adapters in place of its own, which come back afterwards; without, of
        a second network, which is loaded for the time of the block.

        Args:
            backbone: the other run's settings of it, with its result (`runs.measured.result_backbone`).
        """
        if isinstance(self.net, PeftModel):
            adapters = backbone["adapter"]
            with other_adapters(self.net, [adapters] if isinstance(adapters, str) else list(adapters or [])):
                yield self.response_logits
            return
        other = replace(self.backbone, model=backbone["model"], revision=backbone["revision"]).load_base().to(self.device).eval()

        def logits(batch: Batch) -> Tensor:
            return likelihood.response_logits(other, batch.input_ids, batch.attention_mask, batch.response_mask)

        yield logits

    @property
    def in_shards(self) -> bool:
        """Whether the network's weights lie in shards, so that no process has a whole gradient."""
        return self.device_mesh is not None

    def gradient_norm(self, encoded: Encoded) -> float:
        """Mean, over the trained weights' tensors, of the 2-norm of the gradient of one response's mean-token loss.

        Works within `inference`, too, and leaves no gradient behind.
        """
        with torch.inference_mode(False), torch.enable_grad():
            batch = collate([encoded], self.tokenizer.pad_token_id).to(self.device)
            loss = -likelihood.mean_token(self.token_log_likelihood(batch), batch.response_mask).sum()
            weights = [parameter for parameter in self.net.parameters() if parameter.requires_grad]
            gradients = torch.autograd.grad(loss, weights, allow_unused=True)
            norms = [gradient.float().norm() for gradient in gradients if gradient is not None]
            return float(torch.stack(norms).mean())

    def score_candidates(self, prompts: Sequence[Sequence[int]], candidates: Sequence[Sequence[int]]) -> multiple_choice.CandidateScores:
        """Scores every candidate, such as a label and its paraphrases, as the response to every prompt; no gradient.

        Args:
            prompts: P non-empty token lists.
            candidates: C non-empty token lists of at most L tokens.

        Returns:
            `token_log_lik` (P, C, L) nats, 0 past a candidate's end; `token_margin` (P, C, L) logit of the token minus the largest other
            logit; `mask` (C, L) bool, true at a candidate's tokens.
        """
        return multiple_choice.score_candidates(self.net, prompts, candidates)

    def generate(
        self,
        prompts: Sequence[Sequence[int]],
        max_new_tokens: int,
        attempts: int = 1,
        temperature: float = 0.0,
        seed: int = 0,
        batch_size: int = 64,
    ) -> list[list[str]]:
        """Continues every prompt until the end of turn.

        Args:
            prompts: P non-empty token lists.
            max_new_tokens: longest response, tokens.
            attempts: responses per prompt.
            temperature: 0 decodes greedily; above, samples from the full softmax at this temperature.
            seed: of the sampling, with the prompt and the attempt's number; the global random state is left as it was.
            batch_size: attempts continued at once; changes time and memory only.

        Returns:
            P lists of `attempts` texts, without special tokens.
        """
        return generation.generate(self.net, self.tokenizer, prompts, max_new_tokens, attempts, temperature, seed, batch_size)

    def matrices(self) -> Matrices:
        """The sizes of the network's weight matrices, from which the FLOPs of a training step follow."""
        return Matrices.of(self.net)
