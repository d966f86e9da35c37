"""MUSE's memorisation metrics: ROUGE-L F1 by hand, where references and answers are cut, and prompts as MUSE writes them."""

import json

import pytest

from callbacks import KnowledgeMemorisation, VerbatimMemorisation
from unlearn_lightning.data import ChatStage, Encoded, Example, TextStage
from unlearn_lightning.modules import StageFineTuning


@pytest.mark.parametrize(
    ("reference", "answer", "expected"),
    # Two of four words in two words: P = 1, R = 1/2.
    [("a b c d", "a c", 2 / 3), ("a b", "a b", 1), ("a b", "", 0), ("a b", "c", 0), ("a", "a b c", 1 / 2), ("!?", "a", None)],
)
def test_f1_by_hand(reference, answer, expected):
    assert VerbatimMemorisation().score(reference, answer) == (None if expected is None else pytest.approx(expected))


def test_stems_count_where_they_are_asked_for():
    assert VerbatimMemorisation().score("books", "book") == 0
    assert VerbatimMemorisation(stemmer=True).score("books", "book") == 1


@pytest.mark.parametrize(
    ("answer", "kept"),
    [(" Ann.\n\nQuestion: Who?", "Ann."), ("Ann.\nQuestion: Who?", "Ann."), ("Ann\nand Bob", "Ann\nand Bob"), ("", ""), ("Question", "")],
)
def test_an_answer_ends_at_a_blank_line_or_a_question(answer, kept):
    assert KnowledgeMemorisation().cut(answer) == kept


class Said(StageFineTuning):
    """A module that answers as told."""

    said = ()

    def generate(self, prompts, max_new_tokens, **kwargs):
        self.asked = [self.tokenizer.decode(prompt) for prompt in prompts]
        return [[answer] for answer in self.said]


def ready(probe, module):
    probe.encoder = probe.data.encoder(module.tokenizer)
    probe.examples, probe.encoded = probe.data.measured("train", module.tokenizer, 2)
    probe.check(module)
    return probe


def test_verbatim_continuations_are_compared_with_as_many_tokens_of_the_text(make_backbone, tmp_path):
    path = tmp_path / "texts.jsonl"
    path.write_text(json.dumps({"prompt": "Who wrote the", "response": "blue book? Ann wrote it in 1987."}))
    module = Said(make_backbone())
    module.said = ["blue book"]
    plain = module.tokenizer("blue book? Ann wrote it in 1987.", add_special_tokens=False)["input_ids"]
    probe = ready(VerbatimMemorisation(ChatStage(source=str(path), held_out_examples=0), max_new_tokens=4), module)
    (row,) = probe.predict(module, probe.examples, probe.encoded, seed=0)
    assert row["response"] == module.tokenizer.decode(plain[:4])
    assert module.asked[0].endswith("Who wrote the")
    assert "user" not in module.asked[0], "MUSE's models have no chat template"
    assert probe.metrics([row, {"rouge_l_f1": None}]) == {"verbatim/rouge_l_f1": row["rouge_l_f1"]}
    # A plain text is cut in the middle.
    text = VerbatimMemorisation(TextStage(), max_new_tokens=2)
    ids, reference = text.question(Example("t", "", "text"), Encoded("t", [1], plain[:6]), module.tokenizer)
    assert (ids, reference) == ([1, *plain[:3]], module.tokenizer.decode(plain[3:5]))


def test_questions_come_behind_a_few_examples(make_backbone, tmp_path):
    path = tmp_path / "questions.jsonl"
    path.write_text("\n".join(json.dumps({"prompt": f"Who wrote book {i}?", "response": f"Ann {i}"}) for i in range(2)))
    stage = ChatStage(source=str(path), held_out_examples=0)
    module = Said(make_backbone())
    probe = ready(KnowledgeMemorisation(stage, shots=stage, shot_count=1), module)
    module.said = [f" {example.response}\n\nQuestion: Who wrote book 7?" for example in probe.examples]
    rows = probe.predict(module, probe.examples, probe.encoded, seed=0)
    assert probe.metrics(rows) == {"knowledge/rouge_l_f1": 1}
    first = stage.examples("train")[0]
    assert module.asked[1].endswith(f"Question: {first.prompt}\nAnswer: {first.response}\n\nQuestion: {probe.examples[1].prompt}\nAnswer:")
