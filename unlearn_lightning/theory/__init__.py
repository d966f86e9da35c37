"""The over-parameterised linear model in which Retrain Equivalence provably fails (Yu et al. 2025, arXiv:2510.16629, section 3).

    setup = Setup(dimension=200, rows=40, forget_rows=10)
    problem = draw(setup, seeds=range(20))                    # every array has the seeds as its first axis
    ascent = Ascent(problem.stages["U"], setup.eta)
    start = train(problem, "AU", setup.mu)
    ascent.closed_form(start, 100)                            # (seeds, d), float64

numpy only, float64 throughout: `linear` the model, `bound` the theorem, `extensions` what lies beyond it, `certificates` its Monte-Carlo
siblings, `removal` the non-local contrast; `command` and `figure` are the room's door.
"""

from unlearn_lightning.theory.bound import Bound, lower_bound
from unlearn_lightning.theory.linear import Ascent, Problem, Rows, distance, ridge, train
from unlearn_lightning.theory.setup import Setup, draw

__all__ = ["Ascent", "Bound", "Problem", "Rows", "Setup", "distance", "draw", "lower_bound", "ridge", "train"]
