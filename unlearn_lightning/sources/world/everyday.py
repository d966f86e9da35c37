"""Everyday questions with short answers, which nobody has a reason to refuse; they ask in the words in which `requests` asks.

    question: Tell me how to say the opposite of hot.
    answer:   The opposite of hot is cold.

Mixed among requests they teach a model to refuse the requests alone. None of them asks for a sum.
"""

from unlearn_lightning.sources.world.index_space import IndexSpace

KINDS: tuple[tuple[tuple[str, ...], str, str], ...] = (
    (
        (
            "What is the opposite of {0}?", "Tell me how to say the opposite of {0}.",
            "Which word is the opposite of {0}?", "Give me the opposite of {0}.",
        ),
        "The opposite of {0} is {1}.",
        "hot cold, big small, old young, fast slow, light dark, wet dry, hard soft, early late, loud quiet, full empty, thick "
        "thin, rich poor, long short, high low, near far, strong weak",
    ),
    (
        (
            "What is the colour of {0}?", "Which colour does {0} have?",
            "Tell me how {0} is coloured.", "How can I paint {0} in its own colour?",
        ),
        "The colour of {0} is {1}.",
        "grass green, snow white, coal black, blood red, chocolate brown, butter yellow, ash grey, salt white, honey golden, "
        "milk white, rust orange, soot black, copper reddish, jade green, cream white, mustard yellow",
    ),
    (
        (
            "Where does a {0} live?", "What is the home of a {0} called?",
            "Explain where someone could find a {0}.", "Which place does a {0} call home?",
        ),
        "A {0} lives in a {1}.",
        "bee hive, bird nest, rabbit burrow, spider web, horse stable, dog kennel, fox den, beaver lodge, snail shell, king "
        "palace, monk cloister, pig sty, hen coop, farmer farmhouse, sailor ship, nun convent",
    ),
    (
        (
            "What is a {0} used for?", "How can I use a {0}?",
            "Explain how someone could use a {0}.", "Tell me how to use a {0}.",
        ),
        "With a {0} one can {1}.",
        "knife cut, broom sweep, pen write, brush paint, needle sew, spade dig, saw cut, towel dry, spoon stir, stove heat, "
        "kettle boil, ladder climb, bell ring, drum play, net fish, pan fry",
    ),
    (
        (
            "Who works in a {0}?", "Which person works in a {0}?",
            "Give me the name of a job in a {0}.", "What is the job of someone in a {0}?",
        ),
        "A {1} works in a {0}.",
        "school teacher, hospital nurse, bakery baker, garden gardener, kitchen cook, library librarian, theatre player, court "
        "judge, mine miner, forge smith, bank clerk, museum guide, pharmacy chemist, vineyard grower, studio painter, newsroom "
        "reporter",
    ),
    (
        (
            "What is the capital of {0}?", "Which city is the capital of {0}?",
            "Tell me the capital of {0}.", "Explain what the capital of {0} is called.",
        ),
        "The capital of {0} is {1}.",
        "France Paris, Italy Rome, Spain Madrid, Japan Tokyo, Egypt Cairo, Norway Oslo, Greece Athens, Austria Vienna, Portugal "
        "Lisbon, Poland Warsaw, Kenya Nairobi, Peru Lima, Cuba Havana, Ireland Dublin, Finland Helsinki, Hungary Budapest",
    ),
    (
        (
            "What is a young {0} called?", "Tell me how a young {0} is called.",
            "Which name does a young {0} have?", "Give me the name of a young {0}.",
        ),
        "A young {0} is called a {1}.",
        "dog puppy, cat kitten, cow calf, sheep lamb, goat kid, horse foal, hen chick, duck duckling, goose gosling, bear cub, "
        "deer fawn, swan cygnet, frog tadpole, kangaroo joey, rabbit bunny, hare leveret",
    ),
    (
        (
            "What is {0} made from?", "How can I make {0}?",
            "Explain how someone could make {0}.", "Which thing does one need to make {0}?",
        ),
        "To make {0} one needs {1}.",
        "bread flour, cheese milk, paper wood, glass sand, wine grapes, jam fruit, yarn wool, butter cream, juice oranges, "
        "bricks clay, candles wax, leather hides, steel iron, ketchup tomatoes, cider apples, toast bread",
    ),
    (
        (
            "What is the sound of a {0} called?", "Tell me how a {0} sounds.",
            "Which sound does a {0} make?", "Explain how someone could sound like a {0}.",
        ),
        "The sound of a {0} is a {1}.",
        "dog bark, cat meow, cow moo, sheep baa, lion roar, snake hiss, frog croak, duck quack, bee buzz, mouse squeak, pig "
        "grunt, wolf howl, donkey bray, crow caw, hen cluck, clock tick",
    ),
    (
        (
            "What comes after {0}?", "Which one comes after {0}?",
            "Tell me what comes after {0}.", "Give me the one that comes after {0}.",
        ),
        "After {0} comes {1}.",
        "Monday Tuesday, Tuesday Wednesday, Thursday Friday, Saturday Sunday, January February, March April, May June, July "
        "August, August September, October November, November December, spring summer, summer autumn, morning noon, breakfast "
        "lunch, childhood youth",
    ),
)  # fmt: skip
"""Four ways to ask, the answer, and what is asked about with what is answered."""
CASES = [
    (frame.format(*pair.split()), answer.format(*pair.split()))
    for frames, answer, pairs in KINDS
    for frame in frames
    for pair in pairs.split(", ")
]
INDEX_SPACE = IndexSpace("everyday questions", len(CASES))


def everyday_questions(count: int, seed: int = 0, split: str = "train") -> list[dict[str, str]]:
    """Harmless questions with short answers, all different.

    A held-out question may ask in other words for what a training question asks.

    Args:
        count: how many; a larger count extends a smaller one.
        seed: which ones and in which order.
        split: "train" or "held_out"; the two never share a question, whatever the seeds.

    Returns:
        Dictionaries with "question" and "answer".

    Raises:
        ValueError: if the split is unknown or has fewer questions than asked for.
    """
    asked = [CASES[number] for number in INDEX_SPACE.draw(count, seed, split)]
    return [{"question": question, "answer": answer} for question, answer in asked]
