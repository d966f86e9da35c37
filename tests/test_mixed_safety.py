"""The stage of requests and harmless questions: its halves are those of the two stages that a study unlearns and retrains on."""

import re

import pytest

from unlearn_lightning.data import EverydayStage, MixedSafetyStage, SafetyStage
from unlearn_lightning.sources import world
from unlearn_lightning.sources.world.everyday import CASES, KINDS


def asked(stage, split):
    return [(example.prompt, example.response) for example in stage.examples(split)]


@pytest.mark.parametrize("count", [1, 6, 7, 256])
@pytest.mark.parametrize("split", ["train", "held_out"])
def test_its_halves_are_the_two_stages(count, split):
    """Requests in the even places, questions in the odd ones, in the order in which the other stages have them."""
    settings = {"train_examples": count, "held_out_examples": min(count, 100)}
    mixed = asked(MixedSafetyStage(**settings), split)
    there = len(mixed)
    requests, harmless = (
        cls(train_examples=half, held_out_examples=half)
        for cls, half in ((SafetyStage, there - there // 2), (EverydayStage, max(1, there // 2)))
    )
    assert mixed[::2] == asked(requests, split)
    assert mixed[1::2] == asked(harmless, split)[: there // 2]


def test_harmless_questions_ask_as_requests_do_and_are_answered():
    """The first word of every request opens harmless questions too; no answer refuses, and no question is a sum."""
    openings = {row["prompt"].split()[0] for row in world.requests(400)}
    questions = world.everyday_questions(512)
    assert openings <= {row["question"].split()[0] for row in questions}
    assert not any("sorry" in row["answer"].lower() or re.search(r"\d", row["question"]) for row in questions)


def test_every_question_is_written_in_one_way_only():
    """Sixteen pairs a kind, four ways to ask; no question stands twice, and no article goes before a vowel."""
    assert len({question for question, _ in CASES}) == len(CASES) == 64 * len(KINDS)
    assert not [case for case in CASES if re.search(r"\ba [aeiou]", " ".join(case).lower())]


def test_the_hub_has_no_mixture():
    with pytest.raises(ValueError, match="MixedSafetyStage has no usual Hub data set"):
        MixedSafetyStage(source="hub").examples("train")


def test_the_default_sizes_are_there():
    for stage in (MixedSafetyStage(), EverydayStage()):
        assert len(stage.examples("train")) == stage.world_examples
        assert len(stage.examples("held_out")) == 128
        assert not {prompt for prompt, _ in asked(stage, "train")} & {prompt for prompt, _ in asked(stage, "held_out")}
