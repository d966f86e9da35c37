"""The built-in synthetic world: seeded texts for every training stage, made on the spot and read from no file.

A study needs four kinds of example (instructions, facts about authors, word problems, requests with refusals) and some
plain text for the tiny base model; another one needs prompts with several responses each. Each generator is a pure
function of its arguments:

    >>> from unlearn_lightning.sources.world import word_problems
    >>> word_problems(2, seed=1) == word_problems(100, seed=1)[:2]
    True

Training and held-out items never meet, for any counts and any seeds, and a larger count only extends a smaller one.
"""

from unlearn_lightning.sources.world.authors import author_questions
from unlearn_lightning.sources.world.base_text import base_text
from unlearn_lightning.sources.world.everyday import everyday_questions
from unlearn_lightning.sources.world.families import response_families
from unlearn_lightning.sources.world.instructions import instructions
from unlearn_lightning.sources.world.requests import OPENING, requests
from unlearn_lightning.sources.world.sums import sums
from unlearn_lightning.sources.world.word_problems import word_problems

__all__ = [
    "OPENING", "author_questions", "base_text", "everyday_questions", "instructions", "requests", "response_families",
    "sums", "word_problems",
]  # fmt: skip
