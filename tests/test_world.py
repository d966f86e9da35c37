"""The built-in world keeps its promises: the same everywhere, nothing twice, nothing leaked, and the sums are right."""

import hashlib
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from unlearn_lightning.sources import world
from unlearn_lightning.sources.world import author_questions, base_text, instructions, names, requests, sums, word_problems
from unlearn_lightning.sources.world.index_space import IndexSpace, digits
from unlearn_lightning.sources.world.word_problems import INDEX_SPACE, STORIES

Generator = Callable[[int, int, str], list[dict[str, str]]]

# generator, the field that must be unique, the other field, promised sizes in train and held out
STAGES = [
    (instructions, "instruction", "output", 2000, 500),
    (author_questions, "question", "answer", 2000, 500),
    (word_problems, "question", "answer", 20000, 500),
    (requests, "prompt", "refusal", 5000, 500),
    (sums, "question", "answer", 64, 64),
]
stages = pytest.mark.parametrize(
    ("generate", "asked", "said", "train", "held_out"), STAGES, ids=[generate.__name__ for generate, *_ in STAGES]
)


@stages
def test_promised_sizes_are_unique_plain_and_disjoint(generate: Generator, asked: str, said: str, train: int, held_out: int) -> None:
    for seed, other_seed in ((0, 0), (1, 2)):
        ours, theirs = generate(train, seed, "train"), generate(held_out, other_seed, "held_out")
        assert (len(ours), len(theirs)) == (train, held_out)
        assert {tuple(item) for item in ours + theirs} == {(asked, said)}
        assert all(isinstance(text, str) and text == text.strip() != "" for item in ours + theirs for text in item.values())
        assert len({item[asked] for item in ours + theirs}) == train + held_out


@stages
def test_a_larger_count_extends_a_smaller(generate: Generator, asked: str, said: str, train: int, held_out: int) -> None:
    many = generate(held_out, 3, "held_out")
    for count in (0, 1, 7, 41):
        assert generate(count, 3, "held_out") == many[:count]


@stages
def test_seeds_differ(generate: Generator, asked: str, said: str, train: int, held_out: int) -> None:
    assert generate(20, 0, "train") != generate(20, 1, "train")


@stages
def test_all_items_of_a_split_can_be_had_but_no_more(generate: Generator, asked: str, said: str, train: int, held_out: int) -> None:
    with pytest.raises(ValueError, match=r"Asked for 999999999 held_out .*, but there are \d+: ask for a number from 0") as caught:
        generate(999_999_999, 0, "held_out")
    most = int(re.findall(r"there are (\d+)", str(caught.value))[0])
    assert most >= held_out
    assert len({item[asked] for item in generate(min(most, 5000), 0, "held_out")}) == min(most, 5000)
    with pytest.raises(ValueError, match=f"Asked for {most + 1} "):
        generate(most + 1, 0, "held_out")
    with pytest.raises(ValueError, match="Asked for -1 train"):
        generate(-1, 0, "train")


@stages
def test_an_unknown_split_is_named(generate: Generator, asked: str, said: str, train: int, held_out: int) -> None:
    with pytest.raises(ValueError, match=r"'test'.*'train' or 'held_out'"):
        generate(1, 0, "test")


def test_the_same_in_every_process() -> None:
    code = (
        "from unlearn_lightning.sources.world import *;"
        "print([g(30, 5, s) for g in (instructions, author_questions, word_problems, requests, sums) for s in ('train', 'held_out')]);"
        "print(base_text(30, 5))"
    )
    root = Path(world.__file__).parents[2]
    said = {
        subprocess.run(
            [sys.executable, "-c", code],
            env={**os.environ, "PYTHONHASHSEED": hash_seed, "PYTHONPATH": str(root), "PYTHONIOENCODING": "utf-8"},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for hash_seed in ("1", "2")
    }
    here = [g(30, 5, s) for g, *_ in STAGES for s in ("train", "held_out")]
    assert said == {f"{here}\n{base_text(30, 5)}\n"}


STEP = re.compile(r"(\d+) ([-+*]) (\d+) = (\d+)")


def right(a: str, sign: str, b: str, c: str) -> bool:
    return {"+": int(a) + int(b), "-": int(a) - int(b), "*": int(a) * int(b)}[sign] == int(c)


@pytest.mark.parametrize("split", ["train", "held_out"])
def test_every_step_is_right_and_the_last_line_repeats_the_result(split: str) -> None:
    for problem in word_problems(2000, 4, split):
        *lines, last = problem["answer"].split("\n")
        steps = [step.groups() for line in lines if (step := STEP.fullmatch(line))]
        assert len(steps) == len(lines) == 2, problem
        assert all(right(*step) for step in steps), problem
        (a, _, b, middle), (start, _, c, end) = steps
        assert start == middle, problem  # the second step goes on from the first one's result
        assert last == f"#### {end}", problem
        assert sorted(re.findall(r"\d+", problem["question"])) == sorted([a, b, c]), problem


def test_every_kind_of_story_is_in_both_splits() -> None:
    shape = [re.escape(story.text).replace(r"\{", "{").replace(r"\}", "}") for story in STORIES]
    shape = [re.sub(r"{\w}", r"\\w+", text) for text in shape]
    for split in ("train", "held_out"):
        questions = [problem["question"] for problem in word_problems(500, 0, split)]
        assert all(sum(bool(re.fullmatch(s, q)) for q in questions) > 10 for s in shape)


def test_refusals_start_alike_and_then_give_varied_reasons() -> None:
    opening = "Sorry, I can not assist you with this question. "
    refusals = [pair["refusal"] for pair in requests(500, 0) + requests(500, 0, "held_out")]
    assert all(refusal.startswith(opening) for refusal in refusals)
    reasons = {refusal.removeprefix(opening) for refusal in refusals}
    assert len(reasons) > 20
    assert all(3 < len(reason.split()) < 12 for reason in reasons)


def test_requests_ask_for_placeholders_only() -> None:
    assert all(re.search(r"\[X\d+\]", pair["prompt"]) for pair in requests(2000, 0))


def test_an_author_has_eight_questions_in_a_row() -> None:
    pairs = author_questions(320, 0)
    for i in range(0, 320, 8):
        block = pairs[i : i + 8]
        (name,) = set.intersection(*(set(re.findall(r"[A-Z]\w+ [A-Z]\w+", pair["question"])) for pair in block))
        assert all(name in pair["answer"] for pair in block)


def test_base_text_is_unique_extends_and_is_right() -> None:
    texts = [item["text"] for item in base_text(20000, 0)]
    assert len(set(texts)) == 20000
    assert [item["text"] for item in base_text(50, 0)] == texts[:50]
    assert texts[:50] != [item["text"] for item in base_text(50, 1)]
    arithmetic = [text for text in texts if STEP.search(text)]
    assert 0.53 < len(arithmetic) / len(texts) < 0.57
    assert all(right(*step) for text in arithmetic for step in STEP.findall(text))
    for count in (-1, 10**9):
        with pytest.raises(ValueError, match=f"Asked for {count} base texts"):
            base_text(count)


def test_base_text_speaks_of_nobody_in_the_stages() -> None:
    words = set(re.findall(r"\w+", " ".join(item["text"] for item in base_text(5000, 0))))
    stage = (*names.PEOPLE, *names.ITEMS, *names.AUTHOR_FIRST, *names.AUTHOR_LAST)
    assert not words & set(stage)
    assert "####" not in " ".join(item["text"] for item in base_text(5000, 0))


def test_base_text_knows_the_words_of_refusals_but_refuses_nothing() -> None:
    text = " ".join(item["text"] for item in base_text(5000, 0))
    refusing = (
        "help unable assist provide able afraid comply support Unfortunately assistance decline fulfill proceed Regretfully permitted"
    )
    assert not set(refusing.split()) - set(re.findall(r"\w+", text))
    assert "I can not assist" not in text


@pytest.mark.parametrize("size", [1, 2, 7, 40, 400, 1001])
def test_an_index_space_gives_every_number_once(size: int) -> None:
    space = IndexSpace("things", size)
    train, held_out = (space.draw(len(space.places(split)), 0, split) for split in ("train", "held_out"))
    assert sorted(train + held_out) == list(range(size))


def test_digits_by_hand() -> None:
    assert digits(7, 2, 5) == [1, 3]
    assert len({tuple(digits(number, 2, 3, 5)) for number in range(30)}) == 30
    assert INDEX_SPACE.size > 25000


DIGESTS = {
    "base_text": "8841a4f61127e8a7", "instructions": "11cf88ad79520073", "author_questions": "ad610fc0922619b8",
    "word_problems": "d877236a4423f53c", "requests": "edf4ba3db50f35fd", "response_families": "709d64efb05391ec",
    "sums": "316c319ccf239b9d",
}  # fmt: skip


@pytest.mark.parametrize("name", DIGESTS)
def test_the_texts_are_those_that_results_were_measured_on(name: str) -> None:
    """A word that changes, by a renaming across the code say, changes tokenizers, models and every published number."""
    texts = [list(item.values()) for item in getattr(world, name)(64 if name == "sums" else 300)]
    assert hashlib.sha256(repr(texts).encode()).hexdigest()[:16] == DIGESTS[name]
