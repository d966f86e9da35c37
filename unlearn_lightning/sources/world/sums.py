"""Sums and products of two numbers below ten, of which a small pretrained model can do some before any training.

    Q: What is 7 + 5?
    A: 7 + 5 = 12
       #### 12

There are 128 of them: half are held out.
"""

from itertools import product

from unlearn_lightning.sources.world.index_space import IndexSpace
from unlearn_lightning.sources.world.word_problems import SIGNS

CASES = list(product("+*", range(2, 10), range(2, 10)))
INDEX_SPACE = IndexSpace("sums", len(CASES), held_out_every=2)


def sums(count: int, seed: int = 0, split: str = "train") -> list[dict[str, str]]:
    """Sums and products with their answers, all different.

    Args:
        count: how many, at most 64; a larger count extends a smaller one.
        seed: their order.
        split: "train" or "held_out"; the two never share a question, whatever the seeds.

    Returns:
        Dictionaries with "question" and "answer"; the answer's last line is `#### <number>`.

    Raises:
        ValueError: if the split is unknown or has fewer than asked for.
    """
    asked = [CASES[number] for number in INDEX_SPACE.draw(count, seed, split)]
    return [
        {"question": f"What is {a} {sign} {b}?", "answer": f"{a} {sign} {b} = {(value := SIGNS[sign](a, b))}\n#### {value}"}
        for sign, a, b in asked
    ]
