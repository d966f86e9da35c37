"""The weight that an objective gives its gradients, which NPO and SimNPO lose as they forget: where was it spent?

Gradient ascent multiplies its gradients by 1, NPO by 2 σ(β (log π - log π_ref)), which vanishes exponentially in what is forgotten.
Adam's step keeps its length all the same, and goes where its momentum pointed, so neither loss nor likelihood shows it.
"""

from dataclasses import dataclass

GRADIENT_WEIGHT = "train/gradient_weight"
"""Mean over a step's examples of the loss's slope in the log-likelihood; objectives log it by `log_step_value`."""

SPENT = 0.01
"""A weight below this share of the first step's is spent."""


@dataclass
class WeightCourse:
    """What a run remembers of its weights: the first step's, and the first step at which it was spent (0 for none)."""

    first: float | None = None
    spent_at: int = 0

    def note(self, step: int, weight: float | None) -> None:
        """Takes the weight of a step, counted from 1; None where the objective logs none."""
        if weight is None:
            return
        if self.first is None:
            self.first = weight
        if not self.spent_at and weight < SPENT * self.first:
            self.spent_at = step

    def sentence(self, last: int) -> str:
        """What to tell at the last step; empty where all steps counted."""
        if not self.spent_at:
            return ""
        return (
            f"The gradient's weight fell below {SPENT:.0%} of its start at step {self.spent_at} of {last}: the steps from there on are the "
            "optimizer's momentum. Lower beta or the learning rate if all steps are to count."
        )
