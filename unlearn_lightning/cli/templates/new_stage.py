"""NewStage: sayings to complete.

unlearn fit -c configs/stages/tofu.yaml -c configs/backbones/tiny-llama.yaml --data new_stage.NewStage
"""

from __future__ import annotations

from random import Random

from unlearn_lightning.data import StageData
from unlearn_lightning.data.example_source import Split


class NewStage(StageData):
    """Sayings of numbers and what follows them.

    Other sources than the built-in examples: `--data.source FILE.jsonl` or `--data.source hub:owner/name`.
    """

    stage_name = "new_stage"
    # The names of a file's or Hub data set's fields.
    fields = ("prompt", "response")
    # How many built-in examples are trained on, unless --data.train_examples says so.
    world_examples = 64

    def world_rows(self, count: int, split: Split) -> list[dict[str, str]]:
        """The built-in examples: the same ones for the same seed, and other ones to train on than to measure with."""
        numbers = list(range(10_000))
        Random(self.data_seed).shuffle(numbers)
        chosen = numbers[:count] if split == "train" else numbers[-count:]
        return [{"prompt": f"What comes after {i}?", "response": f"After {i} comes {i + 1}."} for i in chosen]
