"""MUSE's KnowMem: whether the model answers questions about a text.

- class_path: KnowledgeMemorisation
  init_args:
    data: {class_path: ChatStage, init_args: {source: forget_qa.json, prompt_field: question, response_field: answer}}
    split: train
    shots: {class_path: ChatStage, init_args: {source: forget_qa_icl.json, prompt_field: question, response_field: answer}}
"""

from __future__ import annotations

import re
from itertools import islice
from typing import Any

from callbacks.greedy_continuation import GreedyContinuation
from callbacks.probe import Quantity
from unlearn_lightning.data import Encoded, Example, StageData

# Where an answer ends that the model goes on from with a question of its own.
END = re.compile(r"\n\s*\n|\n?Question")


class KnowledgeMemorisation(GreedyContinuation):
    """KnowMem of MUSE: ROUGE-L F1 of 32 greedy tokens with the answer, after a few examples of `Question: ...` and `Answer: ...`.

    The continuation counts up to a blank line or a further `Question`. The target is the retrained model's value.

    Args:
        data: the stage with the questions; null for the one that `of` names.
        shots: the stage whose first examples stand before each question; null for none.
        shot_count: how many of them at most.
        max_new_tokens: longest continuation, tokens.
    """

    probe_name = "knowledge"
    quantities = {"rouge_l_f1": Quantity("KnowMem (ROUGE-L F1)", "share", "higher")}

    def __init__(
        self,
        data: StageData | None = None,
        *,
        shots: StageData | None = None,
        shot_count: int = 10,
        max_new_tokens: int = 32,
        **kwargs: Any,
    ) -> None:
        super().__init__(data, max_new_tokens=max_new_tokens, **kwargs)
        if shot_count < 0:
            raise ValueError(f"KnowledgeMemorisation: shot_count must be at least 0, got {shot_count}.")
        self.shots, self.shot_count = shots, shot_count
        self._before: str | None = None

    def question(self, example: Example, encoded: Encoded, tokenizer: Any) -> tuple[list[int], str]:
        """The examples and the question, up to where the answer begins."""
        if self._before is None:
            shots = islice(self.shots.each_example(self.shots.usual_split), self.shot_count) if self.shots else []
            self._before = "".join(f"Question: {one.prompt}\nAnswer: {one.response}\n\n" for one in shots)
        return self.prompt_ids(f"{self._before}Question: {example.prompt}\nAnswer:", tokenizer), example.response

    def cut(self, answer: str) -> str:
        """Up to a blank line or a further question."""
        return END.split(answer.lstrip(), maxsplit=1)[0]
