"""Base training of a small model within a study, on chats of the stages' kinds that share no content with them.

base: {data: {class_path: BaseChatStage, init_args: {max_length: 128, batch_size: 32}}, trainer: {max_epochs: 1}}
"""

from __future__ import annotations

from unlearn_lightning.data.example_source import Split
from unlearn_lightning.data.stage_data import StageData
from unlearn_lightning.sources import world


class BaseChatStage(StageData):
    """Chats that give a small base its manners; the base that ships with the package was trained on such ones (`scripts/make_base`).

    Built in only: instructions, questions, problems and requests, each kind answered in its own way, with other names and things.
    """

    stage_name = "base_chats"
    fields = ("prompt", "response")
    world_examples = 24_000

    def world_rows(self, count: int, split: Split) -> list[dict[str, str]]:
        """Chats of four kinds."""
        return world.split_base_chats(count, self.data_seed, split)
