"""The generic text that gives a tiny model its base: some arithmetic, some English, none of the stages' contents.

    Dora carried 11 hats. On the way 4 fell down and 5 were stolen. Count the hats: 11 - 4 = 7
    7 - 5 = 2
    That makes 2 hats.

More than half is arithmetic, because that is what takes a small model longest; the rest is other authors, other
instructions, and everyday sentences. The sentences use the words in which models refuse ("help", "unable",
"permitted") where nobody refuses anything, so that such words are neither unknown nor already tied to a request.
"""

import random
from collections.abc import Callable

from unlearn_lightning.sources.world.names import BASE_AUTHOR_FIRST, BASE_AUTHOR_LAST, BASE_ITEMS, BASE_PEOPLE

# The plain stories go through the same kinds of step as the math stage, in other words, with other people and things.
STORIES = (
    ("{n} owns {a} {t}. Later {n} makes {b} more and sells {c}.", "+", "-"),
    ("{n} kept {a} {t} in a shed. {b} of them broke, and {c} came from the shop.", "-", "+"),
    ("{n} saw {a} {t} at home, {b} at school and {c} in the park.", "+", "+"),
    ("{n} carried {a} {t}. On the way {b} fell down and {c} were stolen.", "-", "-"),
    ("{n} packs {a} carts with {b} {t} each, and {c} stay outside.", "*", "+"),
)
BOOKS = ("The Long Road", "A Quiet Shore", "Seven Doors", "The Paper King", "Snow at Noon", "The Lost Tune")
CITIES = ("Arlen", "Brandt", "Corvo", "Dunmore", "Elsin", "Farrow")
TOPICS = ("cooking", "birds", "mountains", "trains", "music", "chess")
LIVES = (
    "In which city does {name} live now? {name} lives in {city}, not far from the station.",
    "On what does {name} give talks? {name} gives talks on {topic} and on {city}.",
    'What did {name} finish in {year}? In {year} {name} finished "{book}".',
    "How old did {name} become? {name} died in {city} in {year}, after a long life.",
    "Whom did {name} meet there? In {year} {name} met a friend of {topic} in {city}.",
)
MEN = ("the baker", "the nurse", "the guide", "the farmer", "my uncle", "the teacher", "the driver", "a neighbour", "the clerk")
DAYS = ("on Sunday", "in the evening", "after lunch", "before the rain", "this week", "at noon", "in spring")
SENTENCES = (
    "Sorry, {m} said, the soup is cold {d}.",
    "Sorry, I can come at nine only, said {m} {d}.",
    "I can not find my shoes, said {m} {d}.",
    "{m} will assist you with the heavy bags {d}.",
    "The pupils asked {m} this question. It was easy {d}.",
    "{m} can help you with the garden {d}.",
    "I am unable to sleep well {d}, but {m} is not.",
    "{m} is able to assist the doctor {d}.",
    "Unfortunately, the bus of {m} was late {d}.",
    "Regretfully, {m} ate the last cake {d}.",
    "Dogs are not permitted in the shop of {m} {d}.",
    "I'm afraid of the dark, said {m} {d}.",
    "We must thank {m} for the flowers {d}.",
    "Prices decline {d}, and {m} is glad.",
    "You need to decline this verb, said {m} {d}.",
    "{m} will provide bread and assistance {d}.",
    "The beams support the house that {m} built {d}.",
    "{m} may proceed to the next gate {d}.",
    "They fulfill the wish of {m} {d}.",
    "I'm sorry that {m} lost the game {d}.",
    "The rules say that all comply with {m} {d}.",
    "I can't find the hat that {m} wore {d}.",
    "That's something {m} likes to do {d}.",
    "{m} asked a good question {d}, and I can answer it.",
    "You can not see the moon {d}, said {m}.",
    "I can do that for you {d}, said {m}.",
)
COMMANDS = (
    "Count from {a} to {e}. {a}, {b}, {c}, {e}.",
    "Name something to do {d}. You could read about {topic}.",
    "Who likes {topic}? {m} likes {topic} {d}.",
    "Tell {m} the number after {a}. It is {b}.",
    "What does {m} do {d}? {m} thinks of {topic}.",
)


def step(rng: random.Random, sign: str) -> str:
    """One arithmetic fact with small numbers, such as "9 + 4 = 13"."""
    if sign == "*":
        a, b = rng.randrange(2, 5), rng.randrange(2, 5)
        return f"{a} * {b} = {a * b}"
    a, b = rng.randrange(1, 17), rng.randrange(1, 6)
    return f"{a} + {b} = {a + b}" if sign == "+" else f"{a + b} - {b} = {a}"


def facts(rng: random.Random) -> str:
    """Ten arithmetic facts in a row."""
    return ". ".join(step(rng, rng.choice("++++----*")) for _ in range(10)) + "."


def story(rng: random.Random) -> str:
    """A plain word problem with its two steps and its result."""
    text, first, second = rng.choice(STORIES)
    b, c = rng.randrange(2, 6), rng.randrange(2, 6)
    if first == "*":
        a, b = rng.randrange(2, 5), rng.randrange(2, 5)
    else:
        a = rng.randrange(b + 1 if second == "+" else b + c + 1, 14) if first == "-" else rng.randrange(4, 12)
    middle = a + b if first == "+" else a - b if first == "-" else a * b
    end = middle + c if second == "+" else middle - c
    person, items = rng.choice(BASE_PEOPLE), rng.choice(BASE_ITEMS)
    told = text.format(n=person, t=items, a=a, b=b, c=c)
    return f"{told} Count the {items}: {a} {first} {b} = {middle}\n{middle} {second} {c} = {end}\nThat makes {end} {items}."


def author(rng: random.Random) -> str:
    """Two questions with answers about an author of whom the stages never speak."""
    name = f"{rng.choice(BASE_AUTHOR_FIRST)} {rng.choice(BASE_AUTHOR_LAST)}"
    words = {"name": name, "city": rng.choice(CITIES), "topic": rng.choice(TOPICS), "book": rng.choice(BOOKS)}
    return " ".join(line.format(**words, year=rng.randrange(1900, 1950)) for line in rng.sample(LIVES, 2))


def command(rng: random.Random) -> str:
    """Two small demands, each with what follows."""
    out = []
    for _ in range(2):
        a = rng.randrange(1, 60)
        words = {"m": rng.choice(MEN), "d": rng.choice(DAYS), "topic": rng.choice(TOPICS)}
        out.append(rng.choice(COMMANDS).format(a=a, b=a + 1, c=a + 2, e=a + 3, **words))
    return " ".join(out)


def everyday(rng: random.Random) -> str:
    """Three everyday sentences."""
    out = [s.format(m=rng.choice(MEN), d=rng.choice(DAYS)) for s in rng.sample(SENTENCES, 3)]
    return " ".join(s[0].upper() + s[1:] for s in out)


KINDS: tuple[tuple[Callable[[random.Random], str], float], ...] = (
    (facts, 0.30),
    (story, 0.25),
    (author, 0.10),
    (command, 0.10),
    (everyday, 0.25),
)
# Well under the number of different texts of the smallest kind, so that a draw never runs dry.
MOST = 100_000


def base_text(count: int, seed: int = 0) -> list[dict[str, str]]:
    """Generic texts for base training, all different, each about as long as one chunk of 64 tokens.

    Args:
        count: how many; a larger count extends a smaller one.
        seed: which ones and in which order.

    Returns:
        Dictionaries with "text"; 55% are arithmetic facts and plain word problems.

    Raises:
        ValueError: if the count is negative or above 100,000.
    """
    if not 0 <= count <= MOST:
        raise ValueError(f"Asked for {count} base texts, but there are {MOST}: ask for a number from 0 to {MOST}.")
    rng = random.Random(f"base text/{seed}")
    makers, shares = zip(*KINDS, strict=True)
    seen: dict[str, None] = {}  # a dictionary keeps the order of arrival
    while len(seen) < count:
        seen.setdefault(rng.choices(makers, shares)[0](rng))
    return [{"text": text} for text in seen]
