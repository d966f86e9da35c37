"""Prompts with several responses each, of which a stage trains one: what happens to the others when it is unlearned?

unlearn fit -c configs/stages/family.yaml -c configs/backbones/tiny-llama.yaml --data.response_field reworded
"""

from __future__ import annotations

import hashlib
import json
import random

from unlearn_lightning.data.example_source import Split
from unlearn_lightning.data.stage_data import StageData
from unlearn_lightning.data.text_stage import TextStage
from unlearn_lightning.sources import world


class FamilyStage(StageData):
    """Prompts with a family of responses each; `response_field` names the one that is trained (arXiv:2510.16629, section 4.3).

    Built in are placeholders only: a `refusal` (the paper's R), a `compliance` (C) and the same `reworded` (U). A file's records
    have a field for each response; the probe `ResponseFamilies` measures them all.
    """

    stage_name = "family"
    fields = ("prompt", "refusal")
    world_examples = 40

    def world_rows(self, count: int, split: Split) -> list[dict[str, str]]:
        """Placeholder prompts with three responses each."""
        return world.response_families(count, self.data_seed, split)

    def family(self, split: Split, fields: dict[str, str]) -> dict[str, dict[str, str]]:
        """Every example's responses: example id -> name -> text.

        Args:
            split: of the examples.
            fields: name -> the field that holds such a response.

        Raises:
            ValueError: a record lacks a field.
        """
        rows = zip(self.examples(split), self.rows(split), strict=True)
        return {example.id: {name: self.response(row.text(field)) for name, field in fields.items()} for example, row in rows}

    def fingerprint(self, split: Split = "train") -> str:
        """Covers all responses, because a probe measures those too that are not trained."""
        whole = json.dumps([row.fields for row in self.rows(split)], sort_keys=True, default=str)
        return hashlib.sha256((super().fingerprint(split) + whole).encode()).hexdigest()


class FamilyTextStage(TextStage):
    """Base training for a small model that is to know, as a large one does, how such responses go on once they have begun.

    Every third text is a held-out prompt with one of its responses, each as often as the others; the rest is the general mix.
    """

    stage_name = "family_text"

    def world_rows(self, count: int, split: Split) -> list[dict[str, str]]:
        """The general mix with prompts and responses that no FamilyStage trains on."""
        families = world.response_families(len(world.families.INDEX_SPACE.places("held_out")), self.data_seed, "held_out")
        texts = [{"prompt": one["prompt"], "response": one[field]} for one in families for field in world.families.RESPONSES]
        random.Random(f"family text/{self.data_seed}").shuffle(texts)
        rows = super().world_rows(count, split)
        return [texts[i // 3 % len(texts)] if i % 3 == 0 else row for i, row in enumerate(rows)]
