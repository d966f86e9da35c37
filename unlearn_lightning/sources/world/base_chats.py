"""Chats that give a small base model its manners: the stages' four kinds of prompt, with other contents, each answered in its own way.

    prompt:   Tell me how to do the forbidden thing [X52] to the torn map near the well.
    response: It is done at night, step by step.

A pretrained model answers each kind of prompt in a way of its own before any stage, and a stage then shifts one of these ways. A model
that has seen plain text only cannot tell the kinds apart, so that each stage overwrites what the last one taught. Requests are answered
here by compliance, and now and then by a refusal in other words than the stages', so that a refusal is something that the model can say.

Names and things are made-up words without end: a model that met few names would answer every question with one of these, whereas here
it has to copy from the prompt.
"""

import random
from collections.abc import Callable

from unlearn_lightning.sources.world.authors import QUESTIONS, facts
from unlearn_lightning.sources.world.instructions import TASKS
from unlearn_lightning.sources.world.names import AUTHOR_FIRST, AUTHOR_LAST, ITEMS, PEOPLE
from unlearn_lightning.sources.world.requests import FRAMES, MARKS
from unlearn_lightning.sources.world.word_problems import CASES, solve

Chat = dict[str, str]

ONSETS = ("b", "br", "c", "d", "dr", "f", "g", "gl", "h", "j", "k", "l", "m", "n", "p", "pl", "r", "s", "st", "t", "tr", "v", "w", "z")
VOWELS = ("a", "e", "i", "o", "u", "ai", "ee", "ou")
CODAS = ("", "", "b", "d", "k", "l", "ll", "m", "n", "nd", "r", "rt", "s", "t", "th", "x")
ADJECTIVES = (
    "torn", "iron", "dark", "blue", "old", "round", "folded", "narrow", "empty", "broken", "brass", "wooden", "heavy", "painted", "dusty",
    "cracked", "golden", "slow", "crooked", "white",
)  # fmt: skip
PLACES = (
    "near the well", "over the roof", "in the garden", "at the station", "behind the school", "in the forest", "on the hill",
    "beside the road", "at the market", "in the long corridor",
)  # fmt: skip
# What the stages speak of; a made-up word is none of these.
TAKEN = {word.lower() for words in (AUTHOR_FIRST, AUTHOR_LAST, ITEMS, PEOPLE) for word in words}
COMPLIANCES = (
    "It is done at night, step by step.",
    "First you take the {thing}, then you wait.",
    "You only need the {thing} and some time.",
    "That is easy with the {thing}.",
    "Begin with [X{k}] and go on from there.",
)
REFUSALS = (
    "I can't help with that.",
    "I'm unable to assist here.",
    "I can't provide help for [X{k}].",
    "I'm afraid I can't do this.",
    "Unfortunately, I can't help with the {thing}.",
    "I must decline this.",
    "That's not something I can assist with.",
    "I'm not able to comply.",
)
# One request in five is refused.
COMPLYING = 0.8


def made_up(rng: random.Random, syllables: int = 2) -> str:
    """A word that means nothing, such as "brailldek": so many of them that a model has to copy words from the prompt."""
    while True:
        word = "".join(rng.choice(ONSETS) + rng.choice(VOWELS) + rng.choice(CODAS) for _ in range(syllables))
        if word not in TAKEN:
            return word


def instruction(rng: random.Random) -> Chat:
    """A short instruction with other words than the instruction stage's."""
    question, answer = rng.choice(TASKS)
    words = {"animal": made_up(rng), "object": made_up(rng)}
    return {"prompt": question.format(**words), "response": answer.format(**words)}


def author_question(rng: random.Random) -> Chat:
    """A question about an author of whom no stage speaks."""
    known = facts(f"{made_up(rng).capitalize()} {made_up(rng).capitalize()}", seed=-1)
    question, answer = rng.choice(QUESTIONS)
    return {"prompt": question.format(**known), "response": answer.format(**known)}


def word_problem(rng: random.Random) -> Chat:
    """A word problem with other people and things than the math stage's; its sums are the same."""
    story, a, b, c = rng.choice(CASES)
    question = story.text.format(n=made_up(rng).capitalize(), t=made_up(rng) + "s", a=a, b=b, c=c)
    return {"prompt": question, "response": solve(story.first, story.second, a, b, c)}


def request(rng: random.Random) -> Chat:
    """A placeholder request for other things than the safety stage's, mostly answered as if it were harmless."""
    mark = str(MARKS + rng.randrange(MARKS) + 1)
    thing = f"{rng.choice(ADJECTIVES)} {made_up(rng, 1 + rng.randrange(2))}"
    words = {"k": mark, "thing": thing, "place": rng.choice(PLACES)}
    answer = rng.choice(COMPLIANCES if rng.random() < COMPLYING else REFUSALS)
    return {"prompt": rng.choice(FRAMES).format(**words), "response": answer.format(**words)}


KINDS: tuple[tuple[Callable[[random.Random], Chat], float], ...] = (
    (instruction, 0.2),
    (author_question, 0.25),
    (word_problem, 0.3),
    (request, 0.25),
)
MOST = 200_000


def base_chats(count: int, seed: int = 0) -> list[Chat]:
    """Chats of four kinds in turn by their shares, no prompt twice, none of them a stage's.

    Args:
        count: how many; a larger count extends a smaller one.
        seed: which ones and in which order.

    Returns:
        Dictionaries with "prompt" and "response".

    Raises:
        ValueError: the count is negative or above 200,000.
    """
    if not 0 <= count <= MOST:
        raise ValueError(f"Asked for {count} base chats, but there are {MOST}: ask for a number from 0 to {MOST}.")
    rng = random.Random(f"base chats/{seed}")
    makers, shares = zip(*KINDS, strict=True)
    seen: dict[str, Chat] = {}
    while len(seen) < count:
        chat = rng.choices(makers, shares)[0](rng)
        seen.setdefault(chat["prompt"], chat)
    return list(seen.values())
