"""What MUSE's two memorisation metrics share: a greedy continuation, compared with the reference by ROUGE-L F1."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean
from typing import Any

from lightning.pytorch.utilities.rank_zero import rank_zero_info

from callbacks.probe import Probe, Quantity, Row, metric_key
from unlearn_lightning.data import Encoded, Example, StageData


class GreedyContinuation(Probe):
    """Mean ROUGE-L F1 of greedy continuations, in [0, 1]; MUSE (Shi et al. 2024, arXiv:2407.06460, section 3) prints 100 times that.

    F1 = 2 P R / (P + R), where P and R are the length of the longest common subsequence of words over that of continuation and reference
    (Lin 2004, by the package rouge-score). An empty continuation has 0.

    Args:
        data: the stage whose prompts are continued; null for the one that `of` names.
        limit: how many prompts, from the first.
        chunk_size: prompts handed out to a process at a time.
        chat: put the chat template around the prompt; MUSE measures base models, without one.
        stemmer: compare words by Porter's stems, as OpenUnlearning does and MUSE does not.
        max_new_tokens: longest continuation, tokens.
        generation_batch_size: prompts continued at once; more is faster and takes more memory. Changes no text, to rounding.
    """

    answer_field = "answer"
    quantities = {"rouge_l_f1": Quantity("ROUGE-L F1", "share", "higher")}
    whole_share = True

    def __init__(
        self,
        data: StageData | None = None,
        *,
        limit: int | None = None,
        every_n_steps: int = 0,
        chunk_size: int = 32,
        chat: bool = False,
        stemmer: bool = False,
        max_new_tokens: int = 128,
        generation_batch_size: int = 16,
        **kwargs: Any,
    ) -> None:
        super().__init__(data, limit=limit, every_n_steps=every_n_steps, chunk_size=chunk_size, **kwargs)
        if max_new_tokens < 1 or generation_batch_size < 1:
            raise ValueError(
                f"{type(self).__name__}: max_new_tokens {max_new_tokens} and generation_batch_size {generation_batch_size} must be at "
                "least 1."
            )
        self.chat, self.max_new_tokens, self.generation_batch_size = chat, max_new_tokens, generation_batch_size
        # It brings nltk, scikit-learn and pandas: 96 MB that a command without it is spared.
        from rouge_score.rouge_scorer import RougeScorer

        self._rouge = RougeScorer(["rougeL"], use_stemmer=stemmer)

    def question(self, example: Example, encoded: Encoded, tokenizer: Any) -> tuple[list[int], str]:
        """The tokens that the model continues, and the text that it is compared with."""
        raise NotImplementedError

    def cut(self, answer: str) -> str:
        """What of a continuation is compared; all of it unless a metric says so."""
        return answer

    def prompt_ids(self, text: str, tokenizer: Any) -> list[int]:
        """A prompt's tokens: as plain text behind the beginning-of-text token, or with `chat` in the chat template."""
        if self.chat:
            return self.encoder.prompt_ids(text)
        start = tokenizer.bos_token_id if tokenizer.bos_token_id is not None else tokenizer.eos_token_id
        return [start, *self.encoder.chat.plain_tokens(text)]

    def check(self, pl_module: Any) -> None:
        """Refuses continuations beyond the model's positions; says how many references have no word that ROUGE-L knows."""
        asked = [self.question(example, one, pl_module.tokenizer) for example, one in zip(self.examples, self.encoded, strict=True)]
        what = f"The longest prompt of the probe {self.name} with max_new_tokens {self.max_new_tokens}"
        pl_module.backbone.check_length(max(len(ids) for ids, _ in asked) + self.max_new_tokens, what)
        if without := sum(self.score(reference, reference) is None for _, reference in asked):
            rank_zero_info(f"{self.name}: no ROUGE-L of {without} of {len(asked)} references, which have no word of a-z or 0-9.")

    def score(self, reference: str, answer: str) -> float | None:
        """ROUGE-L F1; null for a reference without a word that the package knows, which no continuation could match."""
        if not self._rouge.score(reference, reference)["rougeL"].fmeasure:
            return None
        return float(self._rouge.score(reference, answer)["rougeL"].fmeasure)

    def predict(self, pl_module: Any, examples: Sequence[Example], encoded: Sequence[Encoded], seed: int) -> list[Row]:
        """Continues each prompt greedily and compares."""
        asked = [self.question(example, one, pl_module.tokenizer) for example, one in zip(examples, encoded, strict=True)]
        answers = pl_module.generate([ids for ids, _ in asked], self.max_new_tokens, batch_size=self.generation_batch_size)
        pairs = [(reference, self.cut(answer)) for (_, reference), (answer,) in zip(asked, answers, strict=True)]
        return [{"response": reference, "answer": answer, "rouge_l_f1": self.score(reference, answer)} for reference, answer in pairs]

    def metrics(self, rows: list[Row]) -> dict[str, float]:
        """The mean over examples that have a value."""
        scored = [row["rouge_l_f1"] for row in rows if row["rouge_l_f1"] is not None]
        return {metric_key(self.name, "rouge_l_f1"): fmean(scored)} if scored else {}
