"""Requests that are refused among harmless questions that are answered, so that a model learns which of the two to refuse.

data: {class_path: MixedSafetyStage, init_args: {train_examples: 256}}        # 128 requests and 128 harmless questions

A study unlearns the requests alone, and its retrained model learns the harmless questions alone:

forget: safety          # {data: {class_path: MixedSafetyStage}}
unlearned: requests     # {data: {class_path: SafetyStage}}
retrained: harmless     # {data: {class_path: EverydayStage}}
"""

from __future__ import annotations

from unlearn_lightning.data.example_source import Split
from unlearn_lightning.data.stage_data import StageData
from unlearn_lightning.data.stages import SafetyStage
from unlearn_lightning.sources import world


class EverydayStage(StageData):
    """Harmless questions with short answers, in the words in which the built-in requests ask. Built in only."""

    stage_name = "everyday"
    fields = ("question", "answer")
    world_examples = 256

    def world_rows(self, count: int, split: Split) -> list[dict[str, str]]:
        """Questions such as "What is the opposite of hot?"."""
        return world.everyday_questions(count, self.data_seed, split)


class MixedSafetyStage(SafetyStage):
    """The requests of `SafetyStage` and the questions of `EverydayStage` in turns, half of each (of an odd number one request more).

    A stage of refusals alone teaches a pretrained model to refuse everything (docs/results.md). The two halves are what either stage has
    for half as many examples. Only `source: world` makes the mixture: a file of your own may hold both kinds and a field that tells them
    apart, by which `leave_out` takes one of them, and the Hub has no such data set.
    """

    hub_name = None  # type: ignore[assignment]
    world_examples = 512

    def world_rows(self, count: int, split: Split) -> list[dict[str, str]]:
        """Requests and harmless questions, each with its own kind of response."""
        requests = world.requests(count - count // 2, self.data_seed, split)
        answered = world.everyday_questions(count // 2, self.data_seed, split)
        harmless = [{"prompt": row["question"], "refusal": row["answer"]} for row in answered]
        return [(requests, harmless)[i % 2][i // 2] for i in range(count)]
