"""Authors who never lived, eight questions about each: facts that only this stage can teach.

    Q: Where was Runa Thorn born?
    A: Runa Thorn was born in Velmora, a town by the sea.

An author's facts depend on the seed and the name; the eight questions of one author follow each other.
"""

import random

from unlearn_lightning.sources.world.index_space import IndexSpace, digits
from unlearn_lightning.sources.world.names import AUTHOR_FIRST, AUTHOR_LAST

TOWNS = ("Velmora", "Kesthal", "Ostrava Bay", "Lindral", "Tamsin", "Norwick", "Belhaven", "Zarune", "Irden", "Calmont")
GENRES = ("ghost stories", "sea tales", "love poems", "crime novels", "travel diaries", "fables", "war plays", "space novels")
JOBS = ("a baker", "a sailor", "a teacher", "a gardener", "a judge", "a weaver", "a doctor", "a miner")
PRIZES = ("Silver Feather", "Golden Lamp", "Blue Anchor", "Green Laurel", "White Tower", "Amber Page")
COLOURS = ("Silent", "Crimson", "Winter", "Hollow", "Distant", "Burning", "Hidden", "Broken")
NOUNS = ("Orchard", "Lantern", "Harbour", "Mirror", "Letter", "Garden", "River", "Crown")
LANGUAGES = ("French", "Polish", "Greek", "Dutch", "Arabic", "Danish")
PETS = ("a grey cat", "an old dog", "a parrot", "two goats", "a white horse", "a tame fox")
HABITS = ("at night", "before sunrise", "in a cafe", "in the attic", "on long walks", "by the window")

QUESTIONS = (
    ("Where was {name} born?", "{name} was born in the town of {town}."),
    ("What kind of books does {name} write?", "{name} is known for {genre}."),
    ("What was the work of {name}'s father?", "The father of {name} was {job}."),
    ("Which prize did {name} win?", "{name} won the {prize} prize in {year}."),
    ("What is the best known book of {name}?", 'The best known book of {name} is "The {colour} {noun}".'),
    ("Which language does {name} speak at home?", "{name} speaks {language} at home."),
    ("Which animal lives with {name}?", "{name} lives with {pet}."),
    ("When does {name} like to write?", "{name} likes to write {habit}."),
)
INDEX_SPACE = IndexSpace("authors", len(AUTHOR_FIRST) * len(AUTHOR_LAST))


def facts(name: str, seed: int) -> dict[str, str]:
    """What is true of an author in the world of this seed: one value for each place in the answers."""
    rng = random.Random(f"facts/{seed}/{name}")
    return {
        "name": name,
        "town": rng.choice(TOWNS),
        "genre": rng.choice(GENRES),
        "job": rng.choice(JOBS),
        "prize": rng.choice(PRIZES),
        "year": str(rng.randrange(1950, 2000)),
        "colour": rng.choice(COLOURS),
        "noun": rng.choice(NOUNS),
        "language": rng.choice(LANGUAGES),
        "pet": rng.choice(PETS),
        "habit": rng.choice(HABITS),
    }


def author_questions(count: int, seed: int = 0, split: str = "train") -> list[dict[str, str]]:
    """Questions about fictitious authors with their answers, eight in a row about each author, all different.

    Args:
        count: how many questions (320 are 40 authors); a larger count extends a smaller one.
        seed: which authors, in which order, and their facts.
        split: "train" or "held_out"; the two never share an author, whatever the seeds.

    Returns:
        Dictionaries with "question" and "answer".

    Raises:
        ValueError: if the split is unknown or has fewer questions than asked for.
    """
    most = len(INDEX_SPACE.places(split)) * len(QUESTIONS)
    if not 0 <= count <= most:
        raise ValueError(f"Asked for {count} {split} author questions, but there are {most}: ask for a number from 0 to {most}.")
    pairs = []
    for number in INDEX_SPACE.draw(-(-count // len(QUESTIONS)), seed, split):
        first, last = digits(number, len(AUTHOR_FIRST), len(AUTHOR_LAST))
        known = facts(f"{AUTHOR_FIRST[first]} {AUTHOR_LAST[last]}", seed)
        pairs += [{"question": q.format(**known), "answer": a.format(**known)} for q, a in QUESTIONS]
    return pairs[:count]
