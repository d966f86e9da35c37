"""Arithmetic word problems in two small steps; the answer shows the steps and ends in a line of its own.

    Q: Mia has 9 shells. Mia finds 5 more and gives away 4. How many shells are left?
    A: 9 + 5 = 14
       14 - 4 = 10
       #### 10

The numbers are small on purpose: a model of half a million parameters can learn to solve most of them.
"""

from dataclasses import dataclass
from itertools import product

from unlearn_lightning.sources.world.index_space import IndexSpace, digits
from unlearn_lightning.sources.world.names import ITEMS, PEOPLE

SIGNS = {"+": int.__add__, "-": int.__sub__, "*": int.__mul__}


@dataclass(frozen=True)
class Story:
    """One kind of problem: a text with the places {n} name, {t} items, {a}, {b}, {c} numbers, and its two operations."""

    text: str
    first: str
    second: str

    def numbers(self) -> list[tuple[int, int, int]]:
        """All (a, b, c) for which every value on the way is a small positive number."""
        starts, others = (range(2, 5), range(2, 5)) if self.first == "*" else (range(4, 12), range(2, 6))
        return [
            (a, b, c)
            for a, b, c in product(starts, others, range(2, 6))
            if SIGNS[self.first](a, b) > 0 and SIGNS[self.second](SIGNS[self.first](a, b), c) > 0
        ]


STORIES = (
    Story("{n} has {a} {t}. {n} finds {b} more and gives away {c}. How many {t} are left?", "+", "-"),
    Story("There are {a} {t} in a box. {n} puts in {b} more and takes out {c}. How many {t} are in the box?", "+", "-"),
    Story("{n} had {a} {t}, lost {b} and then got {c} new ones. How many {t} does {n} have now?", "-", "+"),
    Story("{n} sells {b} of {a} {t} and buys {c} more. How many {t} does {n} have?", "-", "+"),
    Story("{n} finds {a} {t} on Monday, {b} on Tuesday and {c} on Friday. How many {t} is that in all?", "+", "+"),
    Story("{n} has {a} {t}. A friend takes {b} and a brother takes {c}. How many {t} are left?", "-", "-"),
    Story("{n} fills {a} bags with {b} {t} each and finds {c} more. How many {t} does {n} have?", "*", "+"),
)
CASES = [(story, *abc) for story in STORIES for abc in story.numbers()]
INDEX_SPACE = IndexSpace("word problems", len(CASES) * len(PEOPLE) * len(ITEMS))


def solve(first: str, second: str, a: int, b: int, c: int) -> str:
    """The two steps on a line each, then `#### <number>`."""
    middle = SIGNS[first](a, b)
    end = SIGNS[second](middle, c)
    return f"{a} {first} {b} = {middle}\n{middle} {second} {c} = {end}\n#### {end}"


def word_problems(count: int, seed: int = 0, split: str = "train") -> list[dict[str, str]]:
    """Word problems with step-by-step answers, all different.

    Args:
        count: how many; a larger count extends a smaller one.
        seed: which ones and in which order.
        split: "train" or "held_out"; the two never share a question, whatever the seeds.

    Returns:
        Dictionaries with "question" and "answer"; the answer's last line is `#### <number>`.

    Raises:
        ValueError: if the split is unknown or has fewer problems than asked for.
    """
    problems = []
    for number in INDEX_SPACE.draw(count, seed, split):
        case, person, item = digits(number, len(CASES), len(PEOPLE), len(ITEMS))
        story, a, b, c = CASES[case]
        question = story.text.format(n=PEOPLE[person], t=ITEMS[item], a=a, b=b, c=c)
        problems.append({"question": question, "answer": solve(story.first, story.second, a, b, c)})
    return problems
