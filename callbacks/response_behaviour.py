"""What the model says: the share of greedy responses that show a behaviour, such as those that begin with the refusal label.

- class_path: ResponseBehaviour
  init_args: {data: {class_path: SafetyStage}, limit: 64, every_n_steps: 0}

A likelihood can look harmless while no response shows the behaviour any more, as one unlikely token at its start is enough.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import Any

from callbacks.forget_likelihood import LABEL, check_label
from callbacks.probe import Probe, Quantity, Row, metric_key
from unlearn_lightning.data import Encoded, Example, StageData
from unlearn_lightning.records.statistics import PRESENT


class ResponseBehaviour(Probe):
    """Share of the probe's prompts that are answered in the way that is asked for. Each answer is in the records.

    A subclass that overrides `shows` judges in any other way.

    Args:
        data: the stage whose prompts are answered; null for the one that is trained on.
        limit: how many prompts, from the first.
        chunk_size: prompts handed out to a process at a time.
        begins_with: how a response begins that shows the behaviour, after white space.
        pattern: a regular expression that is found in a response that shows the behaviour, instead of its beginning.
        max_new_tokens: longest response, tokens.
        generation_batch_size: responses continued at once; more is faster and takes more memory. Changes no text, to rounding.
    """

    probe_name = "behaviour"
    answer_field = "answer"
    quantities = {
        "share": Quantity("share of responses that show the behaviour", "share", "higher"),
        "share_change": Quantity("change of the share that shows the behaviour", "share", "higher"),
    }
    whole_share = True

    def __init__(
        self,
        data: StageData | None = None,
        *,
        limit: int | None = 64,
        every_n_steps: int = 0,
        chunk_size: int = 32,
        begins_with: str = LABEL,
        pattern: str | None = None,
        max_new_tokens: int = 32,
        generation_batch_size: int = 64,
        **kwargs: Any,
    ) -> None:
        super().__init__(data, limit=limit, every_n_steps=every_n_steps, chunk_size=chunk_size, **kwargs)
        if not begins_with.strip() or max_new_tokens < 1 or generation_batch_size < 1:
            raise ValueError(
                f"ResponseBehaviour: begins_with {begins_with!r} must be a text, and max_new_tokens {max_new_tokens} and "
                f"generation_batch_size {generation_batch_size} at least 1."
            )
        try:
            self._pattern = re.compile(pattern) if pattern is not None else None
        except re.error as error:
            raise ValueError(f"ResponseBehaviour: pattern {pattern!r} is no regular expression: {error}.") from None
        self.begins_with, self.max_new_tokens, self.generation_batch_size = begins_with, max_new_tokens, generation_batch_size

    def check(self, pl_module: Any) -> None:
        """Refuses responses that do not fit into the model's positions or are too short for `begins_with`, and a label of other data."""
        if self.begins_with == LABEL and self._pattern is None and type(self).shows is ResponseBehaviour.shows:
            check_label(self, LABEL, "begins_with", "`begins_with` or `pattern`")
        what = f"max_length {self.data.max_length} of its data plus max_new_tokens {self.max_new_tokens} of the probe {self.name}"
        pl_module.backbone.check_length(self.data.max_length + self.max_new_tokens, what)
        needed = len(self.encoder.response_start_ids(self.begins_with))
        if self._pattern is None and needed > self.max_new_tokens:
            raise ValueError(
                f"ResponseBehaviour: begins_with is {needed} tokens, but responses end after max_new_tokens {self.max_new_tokens}, so none "
                "could begin with it: raise max_new_tokens."
            )

    def shows(self, response: str) -> bool:
        """Whether a response shows the behaviour."""
        return bool(self._pattern.search(response)) if self._pattern else response.lstrip().startswith(self.begins_with)

    def predict(self, pl_module: Any, examples: Sequence[Example], encoded: Sequence[Encoded], seed: int) -> list[Row]:
        """Answers each prompt greedily."""
        prompts = [e.prompt_ids for e in encoded]
        answers = pl_module.generate(prompts, self.max_new_tokens, batch_size=self.generation_batch_size)
        return [{"answer": answer, "shows": self.shows(answer)} for (answer,) in answers]

    def metrics(self, rows: list[Row]) -> dict[str, float]:
        """The share of responses that show the behaviour."""
        return {metric_key(self.name, "share"): fmean(row["shows"] for row in rows)}

    def since_start(self, metrics: dict[str, float]) -> dict[str, float]:
        """Change since the first measurement: negative when lost."""
        key = metric_key(self.name, "share")
        return {metric_key(self.name, "share_change"): metrics[key] - self.start_value(key, metrics)}

    def unknown(self, metrics: Mapping[str, float]) -> str:
        """Says so where most responses do not show the behaviour."""
        share = metrics[metric_key(self.name, "share")]
        return f"before unlearning {share:.0%} of the {len(self.examples)} responses show the behaviour" if share < PRESENT else ""
