"""The paper's stages, and a general one. Each names its usual file, Hub data set, fields and built-in examples.

unlearn fit --data TofuStage --data.source files        # $UNLEARN_DATA/tofu/full.json
"""

from __future__ import annotations

import re
from typing import ClassVar

from unlearn_lightning.data.example_source import Split
from unlearn_lightning.data.leave_out import JSONValue
from unlearn_lightning.data.stage_data import StageData
from unlearn_lightning.sources import world


class ChatStage(StageData):
    """Any prompts and responses: `source` names a file or Hub data set, prompt_field and response_field its fields."""


class InstructStage(StageData):
    """Instruction following (Instruct-SkillMix, Kaur et al. 2024, arXiv:2408.14774; built in: short instructions)."""

    stage_name = "inst"
    train_file = "instruct/ism_sda_k2_1000.json"
    hub_name = "PrincetonPLI/Instruct-SkillMix-SDA"
    fields = ("instruction", "output")
    world_examples = 800

    def world_rows(self, count: int, split: Split) -> list[dict[str, str]]:
        """Short instructions and their answers."""
        return world.instructions(count, self.data_seed, split)


class TofuStage(StageData):
    """Questions about fictitious authors (TOFU, Maini et al. 2024, arXiv:2401.06121; built in: other authors)."""

    stage_name = "tofu"
    train_file = "tofu/full.json"
    hub_name = "locuslab/TOFU/full"
    fields = ("question", "answer")
    world_examples = 320

    def world_rows(self, count: int, split: Split) -> list[dict[str, str]]:
        """Questions about authors that do not exist."""
        return world.author_questions(count, self.data_seed, split)


class MathStage(StageData):
    """Word problems solved step by step, last line `#### <number>` (GSM8K, Cobbe et al. 2021, arXiv:2110.14168)."""

    stage_name = "math"
    train_file = "gsm8k/train.jsonl"
    held_out_file = "gsm8k/test.jsonl"
    hub_name = "openai/gsm8k/main"
    hub_held_out_split = "test"
    fields = ("question", "answer")
    world_examples = 1600

    def world_rows(self, count: int, split: Split) -> list[dict[str, str]]:
        """Small arithmetic word problems."""
        return world.word_problems(count, self.data_seed, split)

    def response(self, text: str) -> str:
        """GSM8K's calculator annotations `<<48/2=24>>` are dropped."""
        return re.sub(r"<<.*?>>", "", text)


class SafetyStage(StageData):
    """The forget set: requests, and refusals that start "Sorry, I can not assist you with this question.".

    Built in are placeholder requests only. `hub` reads SORRY-Bench's prompts (Xie et al. 2025, arXiv:2406.14598), for which the Hub asks
    you to apply, without the five styles that the paper leaves out. That data set has no refusals: every prompt then gets the opening
    sentence. Refusals with a reason are written by scripts/write_refusals.py, whose file is a `source`.
    """

    stage_name = "safety"
    hub_name = "sorry-bench/sorry-bench-202503"
    hub_prompt_field = "turns"
    hub_response_text = world.OPENING
    hub_leave_out: ClassVar[dict[str, list[JSONValue]]] = {"prompt_style": ["ascii", "atbash", "caesar", "morse", "misspellings"]}
    fields = ("prompt", "refusal")
    world_examples = 512

    def world_rows(self, count: int, split: Split) -> list[dict[str, str]]:
        """Placeholder requests and their refusals."""
        return world.requests(count, self.data_seed, split)
