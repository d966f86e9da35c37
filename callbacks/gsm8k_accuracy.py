"""Whether the model still solves word problems: generated solutions, judged by their last line `#### <number>`.

- class_path: GSM8KAccuracy
  init_args: {data: {class_path: MathStage}, limit: 128, every_n_steps: 0}
"""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean
from typing import Any, Literal

from callbacks.probe import Probe, Quantity, Row, metric_key
from unlearn_lightning.data import Encoded, Example, StageData
from unlearn_lightning.inference.answers import final_answer, last_number, same_number, to_number


class GSM8KAccuracy(Probe):
    """Mean over problems of the share of right attempts (arXiv:2510.16629, section 4: five sampled attempts).

    Args:
        data: the math stage; each response must end in `#### <number>`; null for the one that is trained on.
        limit: how many problems, from the first.
        chunk_size: problems handed out to a process at a time.
        attempts: responses per problem.
        temperature: 0 decodes greedily, which needs one attempt only.
        max_new_tokens: longest solution, tokens.
        generation_batch_size: attempts continued at once; more is faster and takes more memory. Changes no text, to rounding.
        match: `strict` reads the number behind the first `####` only, as GSM8K's own code does, `flexible` the last number of the text.
    """

    probe_name = "gsm8k"
    answer_field = "attempts"
    quantities = {
        "accuracy": Quantity("accuracy", "share", "higher"),
        "accuracy_change": Quantity("change of accuracy", "share", "higher"),
    }
    whole_share = True

    def __init__(
        self,
        data: StageData | None = None,
        *,
        limit: int | None = 128,
        every_n_steps: int = 0,
        chunk_size: int = 32,
        attempts: int = 1,
        temperature: float = 0.0,
        max_new_tokens: int = 256,
        generation_batch_size: int = 64,
        match: Literal["strict", "flexible"] = "strict",
        **kwargs: Any,
    ) -> None:
        super().__init__(data, limit=limit, every_n_steps=every_n_steps, chunk_size=chunk_size, **kwargs)
        if attempts < 1 or temperature < 0 or (attempts > 1 and temperature == 0):
            raise ValueError(
                f"GSM8KAccuracy: {attempts} attempts at temperature {temperature}: greedy decoding gives the same text every "
                "time. Use one attempt, or a temperature above 0."
            )
        if max_new_tokens < 1 or generation_batch_size < 1:
            raise ValueError(
                f"GSM8KAccuracy: max_new_tokens {max_new_tokens} and generation_batch_size {generation_batch_size} must be at least 1."
            )
        self.attempts, self.temperature, self.max_new_tokens, self.match = attempts, temperature, max_new_tokens, match
        self.generation_batch_size = generation_batch_size

    def setup(self, trainer: Any, pl_module: Any, stage: str) -> None:
        """Also checks that every problem has a right answer to compare with, and that solutions fit into the model's positions."""
        super().setup(trainer, pl_module, stage)
        what = f"max_length {self.data.max_length} of its data plus max_new_tokens {self.max_new_tokens} of the probe {self.name}"
        pl_module.backbone.check_length(self.data.max_length + self.max_new_tokens, what)
        for example in self.examples:
            if to_number(final_answer(example.response) or "") is None:
                raise ValueError(f"Example {example.id} of {self.data.stage_name} has no line `#### <number>` to compare with.")

    def predict(self, pl_module: Any, examples: Sequence[Example], encoded: Sequence[Encoded], seed: int) -> list[Row]:
        """Generates the attempts and judges them. Each has random numbers of its own, so the chunk's `seed` is not needed."""
        texts = pl_module.generate(
            [e.prompt_ids for e in encoded], self.max_new_tokens, self.attempts, self.temperature, batch_size=self.generation_batch_size
        )
        return [self._row(final_answer(e.response), attempts) for e, attempts in zip(examples, texts, strict=True)]

    def _row(self, answer: str | None, attempts: list[str]) -> Row:
        read = final_answer if self.match == "strict" else last_number
        return {"answer": answer, "attempts": attempts, "correct": [same_number(read(text), answer) for text in attempts]}

    def metrics(self, rows: list[Row]) -> dict[str, float]:
        """Share of right attempts per problem, averaged over problems."""
        return {metric_key(self.name, "accuracy"): fmean(fmean(row["correct"]) for row in rows)}

    def since_start(self, metrics: dict[str, float]) -> dict[str, float]:
        """Change since the first measurement: negative when lost."""
        key = metric_key(self.name, "accuracy")
        return {metric_key(self.name, "accuracy_change"): metrics[key] - self.start_value(key, metrics)}
