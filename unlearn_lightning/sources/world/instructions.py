"""Short instructions with short answers: the stage that teaches a base model to answer at all.

    instruction: Swap these two words: fox candle.
    output:      candle fox

Each task has two free words; the answer follows from them, so a held-out instruction can be got right.
"""

from unlearn_lightning.sources.world.index_space import IndexSpace, digits

ANIMALS = (
    "cat", "dog", "fox", "cow", "hen", "owl", "pig", "bear", "wolf", "frog",
    "goat", "lion", "deer", "swan", "mole", "crab", "mouse", "horse", "sheep", "eagle",
)  # fmt: skip
OBJECTS = (
    "table", "window", "ladder", "bottle", "candle", "pillow", "hammer", "basket", "mirror", "carpet",
    "bucket", "needle", "blanket", "drawer", "kettle", "brush", "clock", "fence", "shelf", "wheel",
)  # fmt: skip

TASKS = (
    ("Which of the two is an animal: {animal} or {object}?", "The {animal} is an animal."),
    ("Which of these is a thing, the {animal} or the {object}?", "The {object} is a thing."),
    ("Write a short sentence about a {animal} and a {object}.", "The {animal} sits near the {object}."),
    ("Join the words {animal} and {object} with a dash.", "{animal}-{object}"),
    ("Swap these two words: {animal} {object}.", "{object} {animal}"),
    ("Ask politely if the {animal} may use the {object}.", "May the {animal} please use the {object}?"),
    ("Describe a {animal} that owns a {object} in one word.", "Lucky."),
    ("Say that the {animal} is bigger than the {object}.", "The {animal} is bigger than the {object}."),
    ("Make a list of two lines: {object}, {animal}.", "1. {object}\n2. {animal}"),
    ("Give a title to a tale of a {animal} and its {object}.", "The {animal} with the {object}"),
)
INDEX_SPACE = IndexSpace("instructions", len(TASKS) * len(ANIMALS) * len(OBJECTS))


def instructions(count: int, seed: int = 0, split: str = "train") -> list[dict[str, str]]:
    """Short instructions with short answers, all different.

    Args:
        count: how many; a larger count extends a smaller one.
        seed: which ones and in which order.
        split: "train" or "held_out"; the two never share an instruction, whatever the seeds.

    Returns:
        Dictionaries with "instruction" and "output".

    Raises:
        ValueError: if the split is unknown or has fewer instructions than asked for.
    """
    pairs = []
    for number in INDEX_SPACE.draw(count, seed, split):
        task, animal, thing = digits(number, len(TASKS), len(ANIMALS), len(OBJECTS))
        question, answer = TASKS[task]
        words = {"animal": ANIMALS[animal], "object": OBJECTS[thing]}
        pairs.append({"instruction": question.format(**words), "output": answer.format(**words)})
    return pairs
