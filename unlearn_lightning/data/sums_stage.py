"""Questions that a pretrained model can answer before any stage: what is left of that beside unlearning?

- class_path: GSM8KAccuracy
  init_args: {data: {class_path: SumsStage}, match: flexible, max_new_tokens: 24}
"""

from __future__ import annotations

from unlearn_lightning.data.example_source import Split
from unlearn_lightning.data.stage_data import StageData
from unlearn_lightning.sources import world


class SumsStage(StageData):
    """Sums and products of two numbers below ten, last line `#### <number>`, for models that cannot solve GSM8K.

    Built in only. With `GSM8KAccuracy` and `match: flexible` the last number of an answer counts, in whatever words it is given.
    """

    stage_name = "sums"
    fields = ("question", "answer")
    world_examples = 64

    def world_rows(self, count: int, split: Split) -> list[dict[str, str]]:
        """Questions such as "What is 7 + 5?"."""
        return world.sums(count, self.data_seed, split)
