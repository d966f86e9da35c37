"""Whether the model still says what the data holds: greedy answers compared with the responses.

- class_path: ResponseMatch
  init_args: {name: forget_answers, split: train, limit: 16}
- class_path: ResponseMatch
  init_args: {name: retain_answers, of: retain, split: train, limit: 16, stemmer: false}
"""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean
from typing import Any

from lightning.pytorch.utilities.rank_zero import rank_zero_info

from callbacks.probe import Probe, Quantity, Row, mean_of, metric_key
from unlearn_lightning.data import Encoded, Example, StageData


class ResponseMatch(Probe):
    """Share of greedy answers that are the response (white space around both aside), and their mean ROUGE-L recall.

    ROUGE-L recall is the length of the longest common subsequence of words, divided by the response's number of words (Lin 2004, by the
    package rouge-score, whose words are of a-z and 0-9). A plain text has no prompt: the model reads its first half and is compared with
    the second.

    Args:
        data: the stage whose prompts are answered; null for the one that `of` names.
        limit: how many prompts, from the first.
        chunk_size: prompts handed out to a process at a time.
        stemmer: compare words by Porter's stems, as TOFU and OpenUnlearning do and MUSE does not.
        max_new_tokens: longest answer, tokens.
        generation_batch_size: answers continued at once; more is faster and takes more memory. Changes no text, to rounding.
    """

    probe_name = "answers"
    answer_field = "answer"
    quantities = {
        "exact_match": Quantity("exact match", "share", "higher"),
        "rouge_l_recall": Quantity("ROUGE-L recall", "share", "higher"),
    }
    whole_share = True

    def __init__(
        self,
        data: StageData | None = None,
        *,
        limit: int | None = 16,
        every_n_steps: int = 0,
        chunk_size: int = 32,
        stemmer: bool = True,
        max_new_tokens: int = 200,
        generation_batch_size: int = 16,
        **kwargs: Any,
    ) -> None:
        super().__init__(data, limit=limit, every_n_steps=every_n_steps, chunk_size=chunk_size, **kwargs)
        if max_new_tokens < 1 or generation_batch_size < 1:
            raise ValueError(
                f"ResponseMatch: max_new_tokens {max_new_tokens} and generation_batch_size {generation_batch_size} must be at least 1."
            )
        self.max_new_tokens, self.generation_batch_size = max_new_tokens, generation_batch_size
        # It brings nltk, scikit-learn and pandas: 96 MB that a command without it is spared.
        from rouge_score.rouge_scorer import RougeScorer

        self._rouge = RougeScorer(["rougeL"], use_stemmer=stemmer)

    def check(self, pl_module: Any) -> None:
        """Refuses answers that do not fit into the model's positions; says how many responses hold no word that ROUGE-L knows."""
        longest = max(len(_question(example, e)[0]) for example, e in zip(self.examples, self.encoded, strict=True))
        what = f"The longest prompt of the probe {self.name} with max_new_tokens {self.max_new_tokens}"
        pl_module.backbone.check_length(longest + self.max_new_tokens, what)
        if without := sum(self._recall(example.response, "") is None for example in self.examples):
            rank_zero_info(f"{self.name}: no ROUGE-L of {without} of {len(self.examples)} responses, which have no word of a-z or 0-9.")

    def predict(self, pl_module: Any, examples: Sequence[Example], encoded: Sequence[Encoded], seed: int) -> list[Row]:
        """Answers each prompt greedily and compares the answer with the response."""
        questions = [_question(example, e) for example, e in zip(examples, encoded, strict=True)]
        answers = pl_module.generate([prompt for prompt, _ in questions], self.max_new_tokens, batch_size=self.generation_batch_size)
        responses = [
            example.response if rest is None else pl_module.tokenizer.decode(rest, skip_special_tokens=True)
            for example, (_, rest) in zip(examples, questions, strict=True)
        ]
        return [self._row(response, answer) for response, (answer,) in zip(responses, answers, strict=True)]

    def _row(self, response: str, answer: str) -> Row:
        exact = answer.strip() == response.strip()
        return {"response": response, "answer": answer, "exact_match": exact, "rouge_l_recall": self._recall(response, answer)}

    def _recall(self, response: str, answer: str) -> float | None:
        """Null for a response without a word that the package knows, which no answer could match."""
        scores = self._rouge.score(response, answer)["rougeL"]
        known = self._rouge.score(response, response)["rougeL"].recall > 0
        return float(scores.recall) if known else None

    def metrics(self, rows: list[Row]) -> dict[str, float]:
        """The means over examples; of ROUGE-L over those that have a value."""
        found = {"exact_match": mean_of(rows, "exact_match")}
        if scored := [row["rouge_l_recall"] for row in rows if row["rouge_l_recall"] is not None]:
            found["rouge_l_recall"] = fmean(scored)
        return {metric_key(self.name, quantity): value for quantity, value in found.items()}


def _question(example: Example, encoded: Encoded) -> tuple[list[int], list[int] | None]:
    """The tokens that the model continues, and those that should follow; null for the latter where they are the whole response.

    An example without a prompt is a plain text, whose first half is the question.
    """
    if example.prompt:
        return encoded.prompt_ids, None
    half = (len(encoded.response_ids) + 1) // 2
    return [*encoded.prompt_ids, *encoded.response_ids[:half]], encoded.response_ids[half:]
