"""Large files of data: what is kept of them and when it is made again, and that the fast ways give what the slow ones give."""

import copy
import json
import os
import signal
import subprocess
import sys
import threading
import time
from functools import partial
from pathlib import Path

import pytest

from unlearn_lightning.data import ChatStage, Encoded, Encoder, Example, TextStage, store_keys, token_store, token_workers
from unlearn_lightning.data.examples import cut_in
from unlearn_lightning.sources import readers

# --- what is kept ------------------------------------------------------------------------------------------------------------


@pytest.fixture
def large(tmp_path, monkeypatch):
    """A file that counts as large: ragged records, of which some repeat a prompt; all that is kept lies in the test's folder."""
    monkeypatch.setattr(readers, "LARGE", 1)
    monkeypatch.setenv(token_store.VARIABLE, str(tmp_path / "kept"))
    path = tmp_path / "large.jsonl"
    rows = [
        {"prompt": f"Who wrote {'the ' * (i % 5)}book {i // 2 % 40}?", "response": f"Ann{' and Bob' * (i % 7)} <|end|>"} for i in range(90)
    ]
    path.write_bytes(b"\xef\xbb\xbf" + "\n\n".join(json.dumps(row) for row in rows).encode() + b"\r\n")
    return path


@pytest.fixture
def tokenizer(make_backbone):
    return make_backbone().load_tokenizer()


def plainly(monkeypatch, stage, split, tokenizer):
    """The same without anything that large files have of their own."""
    with monkeypatch.context() as patch:
        patch.setattr(readers, "LARGE", 10**9)
        encoder = stage.encoder(tokenizer)
        encoded = [encoder._both(example) for example in stage.examples(split)] if type(stage) is ChatStage else None
        return encoded, stage.fingerprint(split), stage.account()


@pytest.mark.parametrize("split", ["train", "held_out"])
@pytest.mark.parametrize(
    "changes", [{}, {"max_length": 40}, {"prompt_template": "Now: {prompt}", "system_prompt": "Be kind."}, {"alternative_field": "prompt"}],
    ids=["plain", "cut", "framed", "second responses"],
)  # fmt: skip
def test_kept_tokens_are_those_of_the_slow_way(changes, split, large, tokenizer, monkeypatch):
    make = partial(ChatStage, source=str(large), held_out_examples=9, **changes)
    expected, fingerprint, account = plainly(monkeypatch, make(), split, tokenizer)
    made, again = (make().encoded_examples(split, tokenizer) for _ in range(2))
    assert list(made) == list(again) == expected
    assert again.lengths == tuple(map(len, expected))
    assert again.longest == (max(map(len, expected)), max(len(one.response_ids) for one in expected))
    assert make().fingerprint(split) == fingerprint
    assert again.facts["account"].replace(store_keys.ANY_USE, "trained on") == (account if split == "train" else "")
    assert again.facts["cut"] == sum(one.truncated for one in expected)


def test_texts_cut_into_pieces_are_kept_too(large, tokenizer):
    stage = TextStage(source=str(large), held_out_examples=9, max_length=20)
    assert list(stage.encoded_examples("train", tokenizer)) == stage.encode(stage.examples("train"), tokenizer)


def test_tokens_are_made_once_until_something_that_decides_them_changes(large, tokenizer, monkeypatch, capsys):
    made, whole = [], store_keys.Making.chunks

    def counted(self):
        made.append(self.split)
        return whole(self)

    monkeypatch.setattr(store_keys.Making, "chunks", counted)
    make = partial(ChatStage, source=str(large), held_out_examples=9)
    ask = [make(), make(batch_size=4, seed=3), make(max_length=60), make(data_seed=5), make(max_length=60, num_workers=1)]
    for stage in ask:
        stage.encoded_examples("train", tokenizer)
    assert len(made) == 3
    other = copy.deepcopy(tokenizer)
    other.chat_template = "{# another #}" + other.chat_template
    make().encoded_examples("train", other)
    assert len(made) == 4
    large.write_text(large.read_text(encoding="utf-8-sig").replace("Bob", "Eve"))
    make().encoded_examples("train", tokenizer)
    assert len(made) == 5


def test_nothing_is_read_where_the_tokens_are_kept(large, tokenizer, monkeypatch):
    make = partial(ChatStage, source=str(large), held_out_examples=9)
    make().training_examples(tokenizer)
    make().fingerprint()
    monkeypatch.setattr(ChatStage, "rows", lambda *_: pytest.fail("the file was read"))
    assert len(make().training_examples(tokenizer)) == 81
    make().fingerprint()


@pytest.mark.parametrize("name", [token_store.TOKENS, token_store.FACTS])
@pytest.mark.parametrize(
    "damage", [lambda c: c[: len(c) // 2], lambda c: c[:50] + bytes(8) + c[58:], lambda c: b""], ids=["cut", "bits", "empty"]
)
def test_damaged_tokens_are_made_again(name, damage, large, tokenizer, tmp_path):
    make = partial(ChatStage, source=str(large), held_out_examples=9)
    expected = list(make().encoded_examples("train", tokenizer))
    (file,) = (tmp_path / "kept").rglob(name)
    file.write_bytes(damage(file.read_bytes()))
    assert list(make().encoded_examples("train", tokenizer)) == expected


def test_a_probe_with_a_limit_reads_no_more_records_than_it_measures(large, tokenizer, monkeypatch):
    make = partial(ChatStage, source=str(large), held_out_examples=9)
    expected = {split: make().measured(split, tokenizer, None) for split in ("train", "held_out")}
    read, whole = [], readers._line_record
    monkeypatch.setattr(readers, "_line_record", lambda *given: read.append(given[1]) or whole(*given))
    for split, (examples, encoded) in expected.items():
        assert make().measured(split, tokenizer, 4) == (examples[:4], encoded[:4])
    # Its first line each time, by which a file of lines is recognised, and its first record, which is named where all lack a field.
    assert len(read) == 2 * (1 + 1 + 4)


def test_a_limit_counts_what_is_left_after_long_prompts(large, tokenizer):
    make = partial(ChatStage, source=str(large), held_out_examples=0)
    middle = sorted(len(one.prompt_ids) for one in make().encode(make().examples("train"), tokenizer))[45]
    stage = make(max_length=middle, skip_long_prompts=True)
    whole = stage.fitting("train", tokenizer)
    assert 5 < len(whole) < 90
    assert stage.fitting("train", tokenizer, 5) == whole[:5]


def test_what_is_cut_is_counted_without_a_look_at_each_example(large, tokenizer, monkeypatch):
    kept = ChatStage(source=str(large), held_out_examples=0, max_length=40).encoded_examples("train", tokenizer)
    expected = sum(one.truncated for one in kept)
    monkeypatch.setattr(token_store.StoredExamples, "__getitem__", lambda *_: pytest.fail("an example was read"))
    assert cut_in(kept) == expected > 0


def test_whoever_wants_the_same_tokens_waits_for_the_one_who_makes_them(large):
    """A lock on an open file holds between threads as it does between processes."""
    chunk, others, made = token_store.table([Encoded("a", [1], [2])]), [], []

    def second():
        token_store.stored("key", "chat", lambda: iter(made.append("second") or [chunk]), dict)

    def first():
        others.append(threading.Thread(target=second))
        others[0].start()
        others[0].join(0.2)
        assert others[0].is_alive(), "it did not wait"
        made.append("first")
        yield chunk

    assert len(token_store.stored("key", "chat", first, dict)) == 1
    others[0].join(20)
    assert made == ["first"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b'{"prompt": "a", "response": "b"}\n{"prompt": ', r"large\.jsonl:2: not JSON"),
        (b'{"prompt": "a", "response": "b"}\n[1]', r"large\.jsonl:2: expected a JSON object"),
        (b'{"prompt": "a", "response": "b"}\n{"prompt": "\xff", "response": "b"}', r"large\.jsonl:2: byte 45 of the file is 0xff"),
        (b'{"prompt": "a", "response": "b"}\n{"a": 1, "a": 2}', r"large\.jsonl:2: not JSON that can be read .*there twice"),
        (b'{"prompt": "a", "response": "b"}\n{"prompt": "\\ud83d", "response": "b"}', r"large\.jsonl:2: .*half of a surrogate pair"),
        (b"\x1f\x8b", "compressed by gzip"),
        (b'{\n"prompt": "a"}\n{', "not JSON"),
        (b"\n \n\n", "holds no records|no records|empty"),
    ],
)
def test_bad_lines_of_large_files_are_told_as_those_of_small_ones(content, message, large, monkeypatch):
    large.write_bytes(content)
    said = []
    for size in (1, 10**9):
        monkeypatch.setattr(readers, "LARGE", size)
        with pytest.raises(ValueError, match=message) as error:
            list(readers.read_rows(str(large)))
        said.append(str(error.value))
    assert said[0] == said[1]


def test_a_file_that_changes_while_it_is_read_is_noticed(large):
    rows = readers.read_rows(str(large))
    assert rows[3].fields["prompt"] == "Who wrote the the the book 1?"
    with large.open("a") as file:
        file.write("\n{}")
    with pytest.raises(ValueError, match="was changed while it was read"):
        rows[4]


# --- one call for many texts -------------------------------------------------------------------------------------------------

TEMPLATES = {
    "own": None,
    "strips": "{% for m in messages %}<|{{ m['role'] }}|>{{ m['content'] | trim }}<|end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}",
    "thinks": (
        "{% for m in messages %}<|{{ m['role'] }}|>{% if m['role'] == 'assistant' and '</think>' not in m['content'] %}"
        "<think>\n\n</think>\n\n"
        "{% endif %}{{ m['content'] }}<|end|>{% endfor %}{% if add_generation_prompt %}<|assistant|>{% endif %}"
    ),
}  # fmt: skip


@pytest.mark.parametrize("template", TEMPLATES)
def test_many_examples_at_once_are_encoded_as_one_by_one(template, tokenizer):
    chosen = copy.deepcopy(tokenizer)
    chosen.chat_template = TEMPLATES[template] or chosen.chat_template
    said = ["Who?", " Who\n", "<|end|> typed", "Grüße 書 \u2028 x" * 3, "a" * 70, "{{ 7 * 7 }}"]
    answers = ["Ann.", "<think>hm</think> Ann.", "typed <|user|>", " two\n\nlines "]
    second = [None, "No."]
    examples = [Example(f"{i}", said[i % 6], answers[i % 4], second[i % 2]) for i in range(24)]
    encoder = Encoder(chosen, max_length=120)
    assert encoder.encode(examples) == [encoder._both(example) for example in examples]


# --- several processes -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("cls", [ChatStage, TextStage])
def test_several_processes_make_the_tokens_that_one_makes(cls, large, tokenizer, monkeypatch, tmp_path):
    monkeypatch.setattr(store_keys, "AT_ONCE", 7)
    stage = partial(cls, source=str(large), held_out_examples=9, max_length=14, skip_long_prompts=True)
    found = []
    for count in (1, 3):
        monkeypatch.setenv(token_store.VARIABLE, str(tmp_path / f"by {count}"))
        monkeypatch.setattr(token_workers, "processes", lambda _, count=count: count)
        kept = stage().encoded_examples("train", tokenizer)
        found.append((list(kept), kept.facts))
    assert found[0] == found[1]
    assert len(found[0][0]) > 20
    if cls is ChatStage:
        assert all(found[0][1][name] > 0 for name in ("long", "cut"))


def slow_odd_ones(number):
    time.sleep(0.05 * (number % 2))
    return os.getpid(), number


def test_what_several_processes_make_comes_in_order(monkeypatch):
    monkeypatch.setattr(token_workers, "processes", lambda _: 3)
    made = list(token_workers.in_order(slow_odd_ones, range(20)))
    assert [number for _, number in made] == list(range(20))
    assert len({process for process, _ in made} - {os.getpid()}) > 1


def test_a_bad_line_in_another_process_is_told_as_in_this_one(large, tokenizer, monkeypatch):
    monkeypatch.setattr(store_keys, "AT_ONCE", 7)
    lines = large.read_text(encoding="utf-8-sig").split("\n\n")
    large.write_text("\n".join([*lines[:60], '{"prompt": "only"}', *lines[60:]]))
    said = []
    for count in (1, 3):
        monkeypatch.setattr(token_workers, "processes", lambda _, count=count: count)
        with pytest.raises(ValueError, match=r"large.jsonl:61: .*response") as error:
            ChatStage(source=str(large), held_out_examples=0).encoded_examples("train", tokenizer)
        said.append(str(error.value))
    assert said[0] == said[1]


def test_a_process_that_is_killed_is_told_in_a_line(monkeypatch):
    monkeypatch.setattr(token_workers, "processes", lambda _: 2)
    with pytest.raises(RuntimeError, match=r"One of 2 processes that make tokens was killed.*taskset"):
        list(token_workers.in_order(lambda _: os._exit(9), range(8)))


def test_few_pieces_are_made_here():
    assert token_workers.processes(0) == token_workers.processes(3) == 1
    assert 1 <= token_workers.processes(10**6) <= min(len(os.sched_getaffinity(0)), token_workers.MOST)


FOREVER = """
import os, time
from unlearn_lightning.data import token_workers

token_workers.processes = lambda _: 2


def work(number):
    os.write(1, b"working\\n")
    time.sleep(600)


list(token_workers.in_order(work, range(4)))
"""


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_the_processes_end_with_the_one_that_forked_them(number, tmp_path):
    process = subprocess.Popen([sys.executable, "-c", FOREVER], stdout=subprocess.PIPE, text=True, start_new_session=True)
    assert [process.stdout.readline() for _ in range(2)] == ["working\n"] * 2
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    assert len(children) == 2
    process.send_signal(number)
    process.wait(20)
    end = time.monotonic() + 20
    while alive := [child for child in children if Path(f"/proc/{child}").exists()]:
        assert time.monotonic() < end, f"{alive} go on"
        time.sleep(0.1)
