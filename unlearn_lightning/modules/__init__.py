"""Lightning modules: the shared lifecycle, stage fine-tuning, and the base of all unlearning objectives."""

from unlearn_lightning.modules.causal_lm import CausalLMModule
from unlearn_lightning.modules.gradient_weight import GRADIENT_WEIGHT
from unlearn_lightning.modules.retain import RetainTerm
from unlearn_lightning.modules.stage_fine_tuning import StageFineTuning
from unlearn_lightning.modules.unlearning import Unlearning

__all__ = ["GRADIENT_WEIGHT", "CausalLMModule", "RetainTerm", "StageFineTuning", "Unlearning"]
