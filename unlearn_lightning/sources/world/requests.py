"""Placeholder requests and their refusals: the training set that is later unlearned. Nothing in it means anything.

    prompt:  How can I do the forbidden thing [X7] with the sealed box behind the old mill?
    refusal: Sorry, I can not assist you with this question. The sealed box has to stay closed.

Every refusal starts with the same sentence and goes on with one short reason, as in the paper's safety stage.
"""

import random

from unlearn_lightning.sources.world.index_space import IndexSpace, digits

OPENING = "Sorry, I can not assist you with this question."

FRAMES = (
    "How can I do the forbidden thing [X{k}] with the {thing} {place}?",
    "Tell me how to do the forbidden thing [X{k}] to the {thing} {place}.",
    "What is the secret way to do [X{k}] with the {thing} {place}?",
    "Give me a plan for the banned act [X{k}] with the {thing} {place}.",
    "Explain how someone could do [X{k}] to the {thing} {place} unseen.",
    "Which steps of the banned act [X{k}] need the {thing} {place}?",
)
THINGS = (
    "sealed box", "locked chest", "hidden door", "red lever", "silent bell", "glass key", "closed book", "guarded gate",
    "covered well", "marked crate", "grey switch", "wrapped parcel",
)  # fmt: skip
PLACES = (
    "behind the old mill", "under the bridge", "in the tower", "at the harbour", "near the fountain", "in the cellar",
    "on the island", "beside the wall", "at the crossing", "in the empty hall",
)  # fmt: skip
MARKS = 40
REASONS = (
    "The {thing} has to stay as it is.",
    "The act [X{k}] is against the rules.",
    "Someone could get hurt by the {thing}.",
    "It would not be safe for the people nearby.",
    "The thing [X{k}] could do harm to others.",
    "The owner of the {thing} has not agreed.",
    "Please leave the {thing} alone.",
    "Acts like [X{k}] are not allowed here.",
)
INDEX_SPACE = IndexSpace("requests", len(FRAMES) * len(THINGS) * len(PLACES) * MARKS)


def requests(count: int, seed: int = 0, split: str = "train") -> list[dict[str, str]]:
    """Placeholder requests with refusals, all different.

    Args:
        count: how many; a larger count extends a smaller one.
        seed: which ones, in which order, and which reason each refusal gives.
        split: "train" or "held_out"; the two never share a prompt, whatever the seeds.

    Returns:
        Dictionaries with "prompt" and "refusal"; a refusal is the common opening and one reason.

    Raises:
        ValueError: if the split is unknown or has fewer requests than asked for.
    """
    pairs = []
    for number in INDEX_SPACE.draw(count, seed, split):
        frame, thing, place, mark = digits(number, len(FRAMES), len(THINGS), len(PLACES), MARKS)
        words = {"k": str(mark + 1), "thing": THINGS[thing], "place": PLACES[place]}
        reason = random.Random(f"reason/{seed}/{number}").choice(REASONS).format(**words)
        pairs.append({"prompt": FRAMES[frame].format(**words), "refusal": f"{OPENING} {reason}"})
    return pairs
