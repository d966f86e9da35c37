"""An index space numbers a finite set of texts, splits it into train and held-out items, and draws from it in a seeded order.

A generator that can make N different texts numbers them 0..N-1. `draw` picks numbers, the generator writes them out:

    >>> space = IndexSpace("word problems", 1000)
    >>> space.draw(3, seed=0, split="train") == space.draw(9, seed=0, split="train")[:3]
    True

Which numbers are held out depends on N alone, never on the seed, so two runs with different seeds can not leak either.
"""

import math
import random
from dataclasses import dataclass

SPLITS = ("train", "held_out")


@dataclass(frozen=True)
class IndexSpace:
    """The set of all texts that one generator can make; each text is known by its number.

    Args:
        what: plural name of the items, used in error messages.
        size: how many different items there are in both splits together.
        held_out_every: one item in this many is held out.
    """

    what: str
    size: int
    held_out_every: int = 5

    def places(self, split: str) -> range:
        """The positions that belong to a split; `number` turns a position into an item's number.

        Raises:
            ValueError: if the split is neither "train" nor "held_out".
        """
        if split not in SPLITS:
            raise ValueError(f"There is no split {split!r} of the {self.what}: choose 'train' or 'held_out'.")
        held_out = self.size // self.held_out_every
        return range(held_out) if split == "held_out" else range(held_out, self.size)

    def number(self, position: int) -> int:
        """Spreads positions evenly over the numbers, one to one, so that every kind of item occurs in both splits."""
        # Steps near the golden ratio of the size leave no part of the numbers uncovered; coprime steps hit each once.
        step = round(self.size * 0.6180339887)
        while math.gcd(step, self.size) != 1:
            step += 1
        return position * step % self.size

    def draw(self, count: int, seed: int, split: str) -> list[int]:
        """The first `count` numbers of the split in the order of the seed, all different.

        Args:
            count: the number of items.
            seed: the seed of the order.
            split: `train` or `held_out`.

        Raises:
            ValueError: if the split is unknown, or the count is negative or more than the split has.
        """
        places = self.places(split)
        if not 0 <= count <= len(places):
            raise ValueError(
                f"Asked for {count} {split} {self.what}, but there are {len(places)}: ask for a number from 0 to {len(places)}."
            )
        rng = random.Random(f"{self.what}/{split}/{seed}")
        # Fisher-Yates that remembers only the swapped places: drawing 10 of a million costs 10 steps.
        moved: dict[int, int] = {}
        numbers = []
        for i in range(count):
            j = rng.randrange(i, len(places))
            numbers.append(self.number(places[moved.get(j, j)]))
            moved[j] = moved.get(i, i)
        return numbers


def digits(number: int, *bases: int) -> list[int]:
    """Writes a number in mixed bases, the fastest digit first: one digit for each free choice of a text.

    >>> digits(7, 2, 5)
    [1, 3]
    """
    out = []
    for base in bases:
        number, digit = divmod(number, base)
        out.append(digit)
    return out
