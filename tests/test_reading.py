"""What is read is what is meant: files in odd encodings and shapes, and the fields that belong to a prompt."""

import gzip
import json
from functools import partial

import pytest

from unlearn_lightning.data import ChatStage, InstructStage, TextStage
from unlearn_lightning.sources.quoting import first_line, listed, quoted

BIG = "x" * 900_000
RECORD = {"prompt": "Who?", "response": "Ann."}
USER, ASSISTANT, SYSTEM = (
    {"role": role, "content": text} for role, text in (("user", "Who?"), ("assistant", "Ann."), ("system", "Be kind."))
)
HUMAN, GPT = {"from": "human", "value": "Who?"}, {"from": "gpt", "value": "Ann."}
INSTRUCTION = partial(ChatStage, prompt_field="instruction")


@pytest.fixture
def examples(tmp_path):
    """The prompts and responses that a stage reads from a file with this content, or from records."""

    def read(content, stage=ChatStage, **settings):
        if not isinstance(content, bytes):
            content = (content if isinstance(content, str) else "\n".join(map(json.dumps, content))).encode()
        (tmp_path / "file.json").write_bytes(content)
        source = stage(source=str(tmp_path / "file.json"), held_out_examples=0, **settings)
        return [(example.prompt, example.response) for example in source.examples("train")]

    return read


def refusal(examples, *arguments, **settings):
    """The one line that says why nothing was read."""
    with pytest.raises(ValueError) as error:  # noqa: PT011 -- the callers look at the message
        examples(*arguments, **settings)
    message = str(error.value)
    assert len(message) < 600, f"{len(message)} characters: {message[:600]}"
    assert "\n" not in message
    return message


@pytest.mark.parametrize(
    "content", [json.dumps(RECORD), json.dumps([RECORD]), json.dumps(RECORD, indent=1), f"{json.dumps(RECORD)}\r\n\r\n"]
)
@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"])
def test_a_byte_order_mark_is_read(examples, content, mark):
    assert examples(mark + content.encode()) == [("Who?", "Ann.")]


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (json.dumps(RECORD).encode("utf-16"), "file.json:1: this is UTF-16"),
        (json.dumps(RECORD).encode("utf-16-le"), "file.json:1: this is UTF-16"),
        (json.dumps(RECORD).encode("utf-32"), "file.json:1: this is UTF-16 or UTF-32"),
        (b'{"prompt": "a"}\n{"prompt": "caf\xe9"}', "file.json:2: byte 31 of the file is 0xe9, which is not UTF-8"),
        (b'[{"prompt": "a"},\n\n{"prompt": "caf\xe9"}]', "file.json:3: byte"),
        (b'{"prompt": "\xed\xa0\xbd"}', "file.json:1: byte 12 of the file is 0xed"),
        (b"PAR1\x15\x04\x15\x00\x80", "file.json is a Parquet table."),
        (gzip.compress(b"{}", mtime=0), "file.json is compressed by gzip."),
        (b"\x28\xb5\x2f\xfd\x04\x00", "file.json is compressed by Zstandard."),
        (b"PK\x03\x04\x14\x00", "file.json is a zip archive."),
        (r'{"prompt": "a", "response": "b"}' + "\n" + r'{"prompt": "\ud83d", "response": "b"}', "file.json:2: '\\ud83d' is half of a"),
        (r'[{"prompt": "a", "response": "x\ude00"}]', "file.json[0]: '\\ude00' is half of a surrogate pair"),
    ],
)  # fmt: skip
def test_text_that_is_not_utf_8_names_the_place_and_what_to_do(examples, content, expected):
    message = refusal(examples, content)
    assert expected in message
    assert "convert it" in message or "Write the whole character" in message


def test_escaped_characters_are_whole_characters(examples):
    assert examples(r'{"prompt": "\ud83d\ude00 \\ud83d", "response": "b"}') == [("😀 \\ud83d", "b")]


@pytest.mark.parametrize("indent", [None, 1])
@pytest.mark.parametrize(
    ("whole", "expected"),
    [
        ({"data": [RECORD] * 3}, "Its field 'data' holds a list of 3 object(s)"),
        ({"version": "1.1", "rows": [RECORD]}, "Its field 'rows' holds a list of 1 object(s)"),
        ({"prompt": ["a", "b"], "response": ["c", "d"]}, "whole columns: each field holds 2 values"),
        ({"prompt": {"0": "a", "1": "b"}, "response": {"0": "c", "1": "d"}}, "whole columns: each field holds 2 values"),
    ],
)
def test_a_file_of_another_shape_says_which_and_what_was_expected(examples, whole, expected, indent):
    message = refusal(examples, json.dumps(whole, indent=indent))
    assert expected in message
    assert "one JSON object a line (JSON lines), or one JSON array of objects" in message


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"\xef\xbb\xbf", "holds no records"),
        ("[]", "holds no records"),
        ("5", "file.json:1: expected a JSON object with named fields, got int 5"),
        ("[null]", "file.json[0]: expected a JSON object with named fields, got NoneType null"),
        ('["a"]', "got str 'a'"),
        ("prompt,response\nhi,there", "file.json:1: not JSON (Expecting value): 'prompt,response'"),
        ('{"prompt": "a", "prompt": "b", "response": "c"}', "file.json:1: not JSON that can be read (field 'prompt' is there twice"),
        ('[{"prompt": "a", "meta": {"id": 1, "id": 2}}]', "field 'id' is there twice"),
        ("[" * 100_000, "recursion depth"),
        ('{"prompt": ' + "1" * 5000 + "}", "Exceeds the limit"),
        ([RECORD, {"prompt": "a"}], "file.json:2: field 'response' is missing"),
        ([{"prompt": {"text": "a"}, "response": "b"}], "field 'prompt' is {'text': 'a'}"),
        ([{"prompt": ["a", 2], "response": "b"}], "field 'prompt' is ['a', 2]"),
        ([{"prompt": "a", "response": None}], "field 'response' is null; expected a non-empty text"),
        ([{"prompt": "a", "response": 72}], "field 'response' is 72; expected a non-empty text"),
        ([{"prompt": "a", "response": True}], "field 'response' is True"),
    ],
)
def test_a_record_that_is_none_is_refused_in_one_line(examples, content, expected):
    assert expected in refusal(examples, content)


def test_a_number_as_response_is_refused_with_what_to_do(examples):
    """It may be an answer, but also the integer of a label: the file has to say it in words."""
    assert "Write the number as a text" in refusal(examples, [{"prompt": "6 * 12?", "response": 72}])


@pytest.mark.parametrize(
    "content",
    [
        f'{{"prompt": "{BIG}', f'"{BIG}"', f'["{BIG}"]', json.dumps({BIG: "a"}), json.dumps({"prompt": {"x": BIG}}),
        json.dumps({"prompt": [BIG, BIG]}), json.dumps({"prompt": [[BIG] * 3] * 2}), json.dumps({f"field {i}": i for i in range(5000)}),
        json.dumps(RECORD | {"history": BIG}), json.dumps(RECORD | {"system": BIG}), json.dumps({"messages": [{"role": BIG}]}),
        json.dumps({"messages": [USER, ASSISTANT] * 5000}), json.dumps(RECORD | {"input": [BIG]}), f'{{"{BIG}": 1, "{BIG}": 2}}',
        json.dumps({"messages": [USER, ASSISTANT], "response": BIG}), json.dumps({"messages": [USER | {"content": [BIG]}, ASSISTANT]}),
    ],
    ids=range(16),
)  # fmt: skip
def test_no_error_shows_more_than_a_few_hundred_characters(examples, content):
    refusal(examples, content)


def test_quotations_are_short_and_say_how_long_the_whole_is():
    assert quoted("a") == "'a'"
    assert quoted(None) == "null"
    assert quoted(BIG) == f"'{'x' * 80}'... (900,000 characters)"
    assert listed(range(10)) == "0, 1, 2, 3, 4, 5, 6, 7 and 2 more"
    assert listed([]) == "none"
    assert first_line(KeyError()) == "KeyError"
    assert len(first_line(OSError(f"{BIG}\nmore"))) < 250


JOINED = [("Do it.\n\nthis", "Ann.")]
PLAIN = [("Who?", "Ann.")]


@pytest.mark.parametrize(
    ("stage", "record", "expected"),
    [
        (InstructStage, {"instruction": "Do it.", "input": "this", "output": "Ann."}, JOINED),
        (InstructStage, {"instruction": "Do it.", "input": " ", "output": "Ann."}, [("Do it.", "Ann.")]),
        (InstructStage, {"instruction": "Do it.", "output": "Ann."}, [("Do it.", "Ann.")]),
        (INSTRUCTION, {"instruction": "Do it.", "context": "this", "response": "Ann."}, JOINED),
        (partial(ChatStage, input_field="facts"), {"prompt": "Do it.", "facts": "this", "response": "Ann."}, JOINED),
        (partial(ChatStage, prompt_template="<{prompt}>"), RECORD, [("<Who?>", "Ann.")]),
        (partial(ChatStage, ignore_fields=["input", "history"]), RECORD | {"input": "this", "history": [["a", "b"]]}, PLAIN),
        (ChatStage, RECORD | {"id": 3, "score": 0.5, "instruction": "other", "history": [], "system": "", "input": None}, PLAIN),
        (partial(ChatStage, system_prompt="Be kind."), RECORD | {"system": "Be kind."}, PLAIN),
        (partial(ChatStage, system_prompt="Be kind."), RECORD | {"system_prompt": "Be kind."}, PLAIN),
        (ChatStage, {"messages": [USER, ASSISTANT]}, PLAIN),
        (partial(ChatStage, system_prompt="Be kind."), {"messages": [SYSTEM, USER, ASSISTANT]}, PLAIN),
        (partial(ChatStage, ignore_fields=["system"]), {"messages": [SYSTEM, USER, ASSISTANT]}, PLAIN),
        (ChatStage, {"messages": [USER | {"content": [{"type": "text", "text": "Who?"}], "name": None}, ASSISTANT]}, PLAIN),
        (ChatStage, {"conversations": [HUMAN, GPT]}, PLAIN),
        (partial(ChatStage, response_field="completion"), {"prompt": [USER], "completion": [ASSISTANT]}, PLAIN),
        (partial(ChatStage, prompt_field="messages"), RECORD | {"messages": [USER, ASSISTANT], "response": "other"}, PLAIN),
        (partial(ChatStage, response_text="Ann."), {"messages": [USER]}, PLAIN),
        (partial(TextStage, ignore_fields=["messages"]), {"text": "Ann.", "n": 1, "messages": [USER]}, [("", "Ann.")]),
    ],
)  # fmt: skip
def test_known_fields_are_used(examples, stage, record, expected):
    assert examples([record], stage) == expected


@pytest.mark.parametrize(
    ("stage", "record", "expected"),
    [
        (ChatStage, RECORD | {"input": "this"}, "field 'input' is 'this', and would be dropped. To join it"),
        (ChatStage, RECORD | {"context": "this"}, "set input_field to context"),
        (InstructStage, {"instruction": "Do it.", "input": ["this", "that"], "output": "Ann."}, "field 'input' is ['this', 'that']"),
        (partial(ChatStage, prompt_field="input"), {"instruction": "Do it.", "input": "a"}, "field 'instruction' is 'Do it.'"),
        (partial(ChatStage, input_field="facts"), RECORD, "field 'facts' is missing"),
        (ChatStage, RECORD | {"history": [["a", "b"]]}, "field 'history'"),
        (ChatStage, RECORD | {"tools": [{"name": "f"}]}, "field 'tools'"),
        (ChatStage, RECORD | {"system": "Be kind."}, "system prompt is 'Be kind.', but system_prompt is ''"),
        (ChatStage, RECORD | {"system_prompt": "Be kind."}, "or ignore_fields to [system_prompt]."),
        (ChatStage, {"messages": [SYSTEM, USER, ASSISTANT]}, "system prompt is 'Be kind.', but system_prompt is ''"),
        (ChatStage, {"conversations": [HUMAN, GPT], "system": "Be kind."}, "system prompt is 'Be kind.'"),
        (ChatStage, {"messages": [USER, ASSISTANT] * 2}, "holds the turns user, assistant, user, assistant. Supported are one user turn"),
        (ChatStage, {"messages": [ASSISTANT, USER]}, "holds the turns assistant, user."),
        (ChatStage, {"messages": [USER]}, "no assistant turn"),
        (ChatStage, {"messages": [USER, {"role": "tool", "content": "x"}]}, "a turn of the role 'tool'"),
        (ChatStage, {"messages": [USER, ASSISTANT | {"tool_calls": [1]}]}, "'tool_calls', which is not supported"),
        (ChatStage, {"messages": [USER, ASSISTANT | {"weight": 0}]}, "weight 0"),
        (ChatStage, {"messages": [USER, ASSISTANT | {"content": " "}]}, "the assistant turn in field 'messages' is ' '"),
        (ChatStage, {"messages": [USER | {"content": [{"type": "image_url"}]}, ASSISTANT]}, "the user turn in field 'messages' is"),
        (ChatStage, RECORD | {"messages": [USER, ASSISTANT]}, "set prompt_field to messages"),
        (ChatStage, {"messages": [USER, ASSISTANT], "response": "other"}, "Which is the response?"),
        (partial(ChatStage, prompt_field="qustion"), {"question": "Who?", "messages": [USER, ASSISTANT]}, "field 'qustion' is missing"),
        (TextStage, {"messages": [USER, ASSISTANT]}, "field 'messages' is a conversation, but TextStage trains on plain texts"),
        (TextStage, {"text": "a", "messages": [USER, ASSISTANT]}, "field 'messages' is a conversation"),
        (TextStage, {"tokens": [1, 2]}, "the record has no text"),
    ],
)  # fmt: skip
def test_known_fields_are_never_dropped_in_silence(examples, stage, record, expected):
    message = refusal(examples, [record], stage)
    assert "file.json:1: " in message
    assert expected in message


def test_ignoring_a_field_that_needs_no_leave_is_a_typo():
    with pytest.raises(ValueError, match=r"ignore_fields names 'inptu'\. Only a field that would be used or refused needs it: 'audios'"):
        ChatStage(ignore_fields=["inptu"])


def test_a_tokenizers_corpus_without_a_text_is_refused(tmp_path):
    from unlearn_lightning.models.scratch import corpus_texts

    (tmp_path / "chat.jsonl").write_text(json.dumps({"messages": [USER, ASSISTANT]}))
    with pytest.raises(ValueError, match=r"chat\.jsonl: no record has a text for the tokenizer; the first has the fields 'messages'"):
        corpus_texts((str(tmp_path / "chat.jsonl"),))


def test_the_records_of_the_documentation_are_read(examples):
    from pathlib import Path

    from unlearn_lightning import data

    text = (Path(__file__).parents[1] / "docs" / "data.md").read_text()
    lines = [line for line in text.split("```")[1].removeprefix("text").splitlines() if line]
    for line in lines:
        record, end = json.JSONDecoder().raw_decode(line)
        named = [word for word in line[end:].replace(":", " ").replace(",", " ").split() if word.endswith("Stage")] or ["ChatStage"]
        for name in named:
            settings = {"response_field": "completion"} if "completion" in record else {}
            ((_, response),) = examples([record], getattr(data, name), **settings)
            assert response
    assert len(lines) == 8


@pytest.mark.parametrize(("name", "separator"), [("people.csv", ","), ("people.TSV", "\t")])
def test_a_table_is_refused_with_the_way_to_read_it(tmp_path, name, separator):
    (tmp_path / name).write_text(f"prompt{separator}response\nWho?{separator}Ann.\n")
    with pytest.raises(ValueError, match=rf"{name}:1: not JSON .* put it into a folder of its own and name the folder"):
        ChatStage(source=str(tmp_path / name), held_out_examples=0).examples("train")
    # The way that the message says.
    if name.endswith(".csv"):
        (tmp_path / "folder").mkdir()
        (tmp_path / name).rename(tmp_path / "folder" / name)
        assert [e.response for e in ChatStage(source=str(tmp_path / "folder"), held_out_examples=0).examples("train")] == ["Ann."]
