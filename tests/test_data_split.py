"""Which records are left out, which are held out, and what is said about it."""

import json
from pathlib import Path
from types import SimpleNamespace

import pytest

from unlearn_lightning.data import ChatStage, MathStage, SafetyStage, TextStage, TofuStage
from unlearn_lightning.runs.run_recorder import RunRecorder


@pytest.fixture
def write(tmp_path):
    """Writes records as JSON lines and gives the path."""

    def records(found, name="rows.jsonl"):
        (tmp_path / name).write_text("\n".join(map(json.dumps, found)))
        return str(tmp_path / name)

    return records


VALUES = [1, 0, "1", True, False, None, 0.5, ["a"], ["a", "b"], [], {"k": [1]}, "a"]


@pytest.mark.parametrize("place", range(len(VALUES)), ids=map(json.dumps, VALUES))
def test_leave_out_compares_values_of_any_type(write, place):
    source = write({"prompt": str(i), "response": "Ann.", "field": value} for i, value in enumerate(VALUES))
    stage = ChatStage(source=source, held_out_examples=0, leave_out={"field": [VALUES[place]]})
    assert {int(example.prompt) for example in stage.examples("train")} == set(range(len(VALUES))) - {place}
    assert stage.account() == "chat: 11 of 11 examples trained on, none held out, 1 left out by field"


@pytest.mark.parametrize(
    ("leave_out", "expected"),
    [
        ({"label": ["0"]}, r'field \'label\' is "0", from .*rows\.jsonl:1 on\. Its values are 0, 1, 2, 3, 4, 5 and 4 more\.'),
        ({"label": [False]}, "field 'label' is false"),
        ({"label": [0, 99]}, "field 'label' is 99"),
        ({"style": ["mosre"]}, r'is "mosre", from .*rows\.jsonl:1 on\. Its values are "morse"'),
        ({"style": [None]}, "is null"),
        ({"text": ["a"]}, "is \"a\", from .*:1 on\\. Its values are \"x{23}\\.\\.\\. \\(9,002 characters\\)"),
        ({"lable": [0]}, "rows.jsonl:1: leave_out looks at field 'lable', but the record has only 'label', 'prompt', 'response'"),
        ({"label": 0}, "field 'label' needs a list of values, got 0"),
        ({"style": "morse"}, "field 'style' needs a list of values, got 'morse'"),
        ({"style": ["morse"]}, "leave_out leaves no record: each of the 10 has a value that is left out by 'style'"),
    ],
)  # fmt: skip
def test_what_leave_out_cannot_mean_is_refused_with_the_values_that_there_are(write, leave_out, expected):
    record = {"prompt": "Who?", "response": "Ann.", "style": "morse", "text": "x" * 9_000}
    stage = ChatStage(source=write(record | {"label": i} for i in range(10)), held_out_examples=0, leave_out=leave_out)
    with pytest.raises(ValueError, match=expected) as error:
        stage.examples("train")
    assert len(str(error.value)) < 500


def test_a_value_that_another_field_has_left_out_already_is_there(write):
    source = write({"prompt": str(i), "response": "Ann.", "a": i, "b": i} for i in range(4))
    stage = ChatStage(source=source, held_out_examples=0, leave_out={"a": [1, 2], "b": [2]})
    assert {example.prompt for example in stage.examples("train")} == {"0", "3"}


def test_a_class_label_is_left_out_by_its_integer_or_its_name(tmp_path):
    import datasets

    features = datasets.Features(
        {"prompt": datasets.Value("string"), "response": datasets.Value("string"), "label": datasets.ClassLabel(names=["glad", "sad"])}
    )
    rows = {"prompt": ["a", "b", "c"], "response": ["d"] * 3, "label": [0, 1, -1]}
    datasets.Dataset.from_dict(rows, features=features).save_to_disk(tmp_path / "set")

    def prompts(value):
        stage = ChatStage(source=str(tmp_path / "set"), held_out_examples=0, leave_out={"label": [value]})
        return {example.prompt for example in stage.examples("train")}

    assert prompts(1) == prompts("sad") == {"a", "c"}
    with pytest.raises(ValueError, match=r'is "happy", from .* on\. Its values are 0, 1, -1, named "glad", "sad"'):
        prompts("happy")


def test_leave_out_takes_values_of_any_type_on_the_command_line():
    from jsonargparse import ArgumentParser

    parser = ArgumentParser()
    parser.add_class_arguments(ChatStage, "data")
    text = '{label: [0, true, null, morse, "1", [a]]}'
    assert parser.parse_args(["--data.leave_out", text]).data.leave_out == {"label": [0, True, None, "morse", "1", ["a"]]}


def repeating(count, prompts):
    """Records of which every prompt has several."""
    return [{"prompt": f"Who wrote {i % prompts}?", "response": f"Ann {i}."} for i in range(count)]


@pytest.mark.parametrize(("prompts", "asked", "held_out"), [(100, 30, 30), (20, 30, 30), (20, 32, 30), (7, 30, 30), (2, 60, 50)])
def test_all_records_of_a_prompt_are_on_one_side(write, prompts, asked, held_out):
    source = write(repeating(100, prompts))
    stage = ChatStage(source=source, held_out_examples=asked)
    train, held = stage.examples("train"), stage.examples("held_out")
    assert not {e.prompt for e in train} & {e.prompt for e in held}
    assert len(held) <= asked
    assert len(held) >= held_out - 2
    assert len(train) + len(held) == 100
    again = ChatStage(source=source, held_out_examples=asked)
    assert again.examples("held_out") == held
    assert ChatStage(source=source, held_out_examples=asked, data_seed=1).examples("held_out") != held


def test_white_space_around_a_prompt_makes_no_other_prompt(write):
    stage = ChatStage(source=write({"prompt": p, "response": "Ann."} for p in ("a", "a ", "\na", "b")), held_out_examples=1)
    assert [example.prompt for example in stage.examples("held_out")] == ["b"]


def test_the_split_of_a_file_without_repeats_is_the_shuffled_one(questions):
    """The order of old: 5 of 19, shuffled with data_seed."""
    import random

    order = list(range(19))
    random.Random(0).shuffle(order)
    stage = ChatStage(source=questions, held_out_examples=5)
    found = [int(example.response.rpartition(" ")[2]) for split in ("held_out", "train") for example in stage.examples(split)]
    assert found == order


def test_a_prompt_in_too_many_records_is_not_held_out_silently(write):
    with pytest.raises(ValueError, match="every prompt stands in more records than the 9 that are to be held out"):
        ChatStage(source=write(repeating(20, 2)), held_out_examples=9).examples("train")


def test_texts_are_split_by_text(write):
    stage = TextStage(source=write({"text": f"Story {i % 5}."} for i in range(20)), held_out_examples=8)
    assert len(stage.examples("held_out")) == 8
    assert not {e.response for e in stage.examples("train")} & {e.response for e in stage.examples("held_out")}


def test_what_is_trained_on_and_held_out_is_said_in_one_line(write):
    source = write(repeating(100, 20))
    other = write(repeating(8, 50), "other.jsonl")
    stages = [
        ChatStage(source=source, held_out_examples=10),
        TofuStage(source=source, held_out_examples=12, train_examples=1, prompt_field="prompt", response_field="response"),
        SafetyStage(train_examples=9, held_out_examples=3),
        ChatStage(source=write(repeating(6, 6), "six.jsonl"), held_out_source=other),
        ChatStage(source=other, held_out_source="none.jsonl"),
    ]
    assert [stage.account() for stage in stages] == [
        "chat: 90 of 100 examples trained on, 10 held out (by prompt), 72 of those trained on repeat the prompt of another",
        "tofu: 1 of 100 examples trained on, 10 of 12 asked for held out (by prompt)",
        "safety: 9 of 9 examples trained on, 3 held out (world)",
        f"chat: 6 of 6 examples trained on, 8 held out ({other}), 6 of them with a prompt that is trained on",
        "chat: 8 of 8 examples trained on, held-out examples that cannot be read (NoDataFile: There is no data file none.jsonl in "
        f"{Path.cwd()}. Give a .json / .jsonl file, or `hub:owner/name`.)",
    ]


@pytest.mark.parametrize("named", ["hub", "hub:openai/gsm8k/main"])
def test_a_held_out_source_on_the_hub_is_the_stages_test_split(write, monkeypatch, named):
    import datasets

    asked = []

    def load_dataset(path, config, split):
        asked.append((path, config, split))
        return datasets.Dataset.from_list([{"question": "Who?", "answer": "Ann."}])

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    stage = MathStage(source=write([{"question": "What?", "answer": "2"}]), held_out_source=named)
    assert [example.prompt for example in stage.examples("held_out")] == ["Who?"]
    assert asked == [("openai/gsm8k", "main", "test")]
    assert stage.account() == "math: 1 of 1 examples trained on, 1 held out (hub:openai/gsm8k/main test)"


def test_the_built_in_examples_can_be_held_out_beside_a_file(write):
    stage = SafetyStage(source=write([{"prompt": "Who?", "refusal": "No."}]), held_out_source="world", held_out_examples=3)
    assert len(stage.examples("held_out")) == 3


def test_the_line_is_printed_for_what_is_trained_on(make_backbone, questions, monkeypatch):
    said = []
    monkeypatch.setattr("unlearn_lightning.data.stage_data.rank_zero_info", said.append)
    stage = ChatStage(source=questions, held_out_examples=5)
    tokens = sum(map(len, stage.training_examples(make_backbone().load_tokenizer())))
    assert said == [f"chat: 14 of 19 examples trained on, 5 held out (by prompt); {tokens:,} tokens, batches of 32."]


def test_the_line_counts_what_has_too_long_a_prompt(make_backbone, write, monkeypatch):
    said = []
    monkeypatch.setattr("unlearn_lightning.data.stage_data.rank_zero_info", said.append)
    source = write({"prompt": "Who? " * n, "response": "Ann."} for n in (1, 60, 2))
    stage = ChatStage(source=source, held_out_examples=0, max_length=60, skip_long_prompts=True)
    with pytest.warns(UserWarning, match="1 of 3 chat examples were left out"):
        stage.training_examples(make_backbone().load_tokenizer())
    assert said[0].startswith("chat: 2 of 3 examples trained on, none held out, 1 left out with prompts that fill max_length; ")


def test_a_negative_number_to_hold_out_is_refused():
    with pytest.raises(ValueError, match="held_out_examples must be at least 0, got -1"):
        ChatStage(held_out_examples=-1)


def test_what_is_cut_is_counted_for_the_training_data_whatever_a_probe_encodes(make_backbone, questions, tmp_path):
    tokenizer = make_backbone().load_tokenizer()
    stage = ChatStage(source=questions, held_out_examples=5, max_length=45)
    with pytest.warns(UserWarning, match="of 14 chat responses were cut"):
        stage.encoded["train"] = stage.encode(stage.examples("train"), tokenizer)
    stage.encode([], tokenizer)
    lengths = [len(tokenizer(e.response + "<|end|>")["input_ids"]) for e in stage.examples("train")]
    kept = [len(e.response_ids) for e in stage.encoded["train"]]
    trainer = SimpleNamespace(datamodule=stage, global_step=1, strategy=SimpleNamespace(reduce=lambda value, reduce_op: value))
    recorder = RunRecorder.__new__(RunRecorder)
    recorder._seconds, recorder._since = 1.0, 0.0
    facts = recorder._facts(trainer, SimpleNamespace(device="cpu", tokens_seen=1))
    assert 0 < facts["truncated"] == sum(was > now for was, now in zip(lengths, kept, strict=True)) < 14


@pytest.mark.parametrize(("field", "value"), [("input", "more"), ("output", "Bob.")])
def test_the_fingerprint_covers_every_text_that_is_trained_on(write, field, value):
    from unlearn_lightning.data import InstructStage

    records = [
        {"instruction": "Who?", "input": "", "output": "Ann.", "id": 1},
        {"instruction": "Why?", "input": "a", "output": "b", "id": 2},
    ]

    def fingerprint(**changed):
        return InstructStage(source=write([records[0] | changed, records[1]]), held_out_examples=0).fingerprint()

    assert fingerprint() == fingerprint(id=7) != fingerprint(**{field: value})


@pytest.mark.parametrize("stage_class", [ChatStage, TofuStage])
@pytest.mark.parametrize("train_examples", [None, 5])
def test_held_out_examples_of_their_own_change_neither_what_is_trained_on_nor_its_order(write, stage_class, train_examples):
    prompt, response = stage_class.fields
    source = write([{prompt: f"Question {i}?", response: f"Answer {i}."} for i in range(30)])
    other = write([{prompt: f"Other {i}?", response: "Nobody."} for i in range(4)], "holdout.jsonl")
    settings = {"source": source, "train_examples": train_examples}
    alone = stage_class(**settings, held_out_examples=0).examples("train")
    beside = stage_class(**settings, held_out_source=other)
    assert beside.examples("train") == alone
    assert [example.prompt for example in beside.examples("held_out")] == [f"Other {i}?" for i in range(4)]
    # The order is shuffled, so that the first examples, which probes measure, are no part of a sorted file; a part keeps the order.
    prompts = [example.prompt for example in alone]
    assert prompts != sorted(prompts, key=lambda text: int(text.split()[1].rstrip("?")))
    if train_examples is None:
        part = [example.prompt for example in stage_class(**settings, held_out_examples=6).examples("train")]
        assert part == [one for one in prompts if one in part]
        assert len(part) == 24
