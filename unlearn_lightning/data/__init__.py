"""Training stages as Lightning data modules: sources, chat formatting, batching."""

from unlearn_lightning.data.batching import Batch, EpochPlan, collate, identity, second_responses
from unlearn_lightning.data.examples import Encoded, Encoder, Example
from unlearn_lightning.data.family_stage import FamilyStage, FamilyTextStage
from unlearn_lightning.data.mixed_safety_stage import EverydayStage, MixedSafetyStage
from unlearn_lightning.data.stage_data import StageData
from unlearn_lightning.data.stages import ChatStage, InstructStage, MathStage, SafetyStage, TofuStage
from unlearn_lightning.data.sums_stage import SumsStage
from unlearn_lightning.data.text_stage import TextStage
from unlearn_lightning.data.tofu_parts import TofuPartStage

__all__ = [
    "Batch", "ChatStage", "Encoded", "Encoder", "EpochPlan", "EverydayStage", "Example", "FamilyStage",
    "FamilyTextStage", "InstructStage", "MathStage", "MixedSafetyStage", "SafetyStage", "StageData", "SumsStage", "TextStage",
    "TofuPartStage", "TofuStage", "collate", "identity", "second_responses",
]  # fmt: skip
