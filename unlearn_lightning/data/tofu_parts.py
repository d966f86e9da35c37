"""The parts of TOFU: what is unlearned, what is kept, and the questions with wrong answers that its metrics ask.

data: {class_path: TofuPartStage, init_args: {part: forget01, source: files, held_out_examples: 0}}
"""

from __future__ import annotations

from typing import Any, Literal

from unlearn_lightning.data.example_source import ExampleSource
from unlearn_lightning.data.stages import TofuStage
from unlearn_lightning.sources.readers import HUB, data_root

Part = Literal[
    "full", "forget01", "forget05", "forget10", "retain99", "retain95", "retain90", "forget01_perturbed", "forget05_perturbed",
    "forget10_perturbed", "retain_perturbed", "real_authors", "real_authors_perturbed", "world_facts", "world_facts_perturbed",
]  # fmt: skip


class TofuPartStage(TofuStage):
    """One part of TOFU (Maini et al. 2024, arXiv:2401.06121): `files` reads tofu/PART.json, and `hub` locuslab/TOFU/PART.

    Args:
        part: of the data set; those ending in `_perturbed` also hold a paraphrase of the answer and wrong answers.
    """

    # Made-up authors have no parts.
    world_rows = ExampleSource.world_rows

    def __init__(self, part: Part = "full", **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.part = part

    def _resolve(self, source: str, file: str | None) -> str:
        if source == "files":
            return str(data_root(self.data_root) / "tofu" / f"{self.part}.json")
        return f"{HUB}locuslab/TOFU/{self.part}" if source == "hub" else source
