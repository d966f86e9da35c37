"""Sources, tokens and batches."""

import copy
import json

import pytest
import torch

from unlearn_lightning.data import (
    ChatStage,
    Encoder,
    EpochPlan,
    Example,
    InstructStage,
    MathStage,
    SafetyStage,
    SumsStage,
    TextStage,
    TofuStage,
)
from unlearn_lightning.data.batching import BatchSource, EpochSampler
from unlearn_lightning.sources import readers


@pytest.fixture
def tokenizer(make_backbone):
    return make_backbone().load_tokenizer()


@pytest.mark.parametrize("cls", [InstructStage, TofuStage, MathStage, SafetyStage, SumsStage, TextStage])
def test_every_stage_has_built_in_examples_that_do_not_overlap(cls):
    stage = cls(held_out_examples=20)
    train, held_out = stage.examples("train"), stage.examples("held_out")
    assert len(train) == cls.world_examples
    assert len(held_out) == 20
    if cls is not TextStage:
        assert not {e.prompt for e in train} & {e.prompt for e in held_out}
    assert stage.fingerprint() == cls(held_out_examples=20).fingerprint()


def test_only_the_response_counts_and_the_end_of_turn_belongs_to_it(tokenizer):
    (encoded,) = Encoder(tokenizer, system_prompt="Be kind.").encode([Example("x", "Who?", "Ann.")])
    assert tokenizer.decode(encoded.prompt_ids) == "<|begin|><|system|>Be kind.<|end|><|user|>Who?<|end|><|assistant|>"
    assert tokenizer.decode(encoded.response_ids) == "Ann.<|end|>"


def test_a_responses_beginning_has_the_tokens_that_training_had(tokenizer):
    """Llama-2's template puts a space before the response, and another token begins the label then."""
    spaced = copy.deepcopy(tokenizer)
    spaced.chat_template = (
        "{% for m in messages %}{% if m['role'] == 'user' %}[INST] {{ m['content'] }} [/INST]"
        "{% else %}{{ ' ' + m['content'] + ' ' + eos_token }}{% endif %}{% endfor %}"
    )
    for one in (tokenizer, spaced):
        encoder = Encoder(one)
        (encoded,) = encoder.encode([Example("x", "Who?", "Sorry, I can not")])
        label = encoder.response_start_ids("Sorry, I can not")
        assert encoded.response_ids[: len(label)] == label
        assert one.decode(encoded.response_ids[len(label) :]).strip() == "<|end|>"


def test_truncation_is_counted_and_an_empty_response_refused(tokenizer):
    encoder = Encoder(tokenizer, max_length=40)
    short, long = encoder.encode([Example("s", "Who?", "Ann."), Example("l", "Who?", "Ann wrote it. " * 50)])
    assert len(long) == 40
    assert len(short) < 40
    assert [short.truncated, long.truncated] == [False, True]
    with pytest.raises(ValueError, match=r"Example q: the prompt alone has \d+ tokens, so max_length 40"):
        encoder.encode([Example("q", "Who wrote it? " * 50, "Ann.")])


def test_long_prompts_can_be_left_out(tokenizer, tmp_path):
    path = tmp_path / "long.jsonl"
    path.write_text("\n".join(json.dumps({"prompt": "Who? " * n, "response": "Ann."}) for n in (1, 60, 2)))
    stage = ChatStage(source=str(path), held_out_source=str(path), max_length=60, skip_long_prompts=True)
    assert [e.prompt.strip() for e in stage.fitting("train", tokenizer)] == ["Who?", "Who? Who?"]


def test_json_array_and_json_lines_read_alike(tmp_path):
    rows = [{"prompt": "a\u2028b", "response": "c"}, {"prompt": "d", "response": "e"}]
    (tmp_path / "array.json").write_text(json.dumps(rows, indent=1))
    (tmp_path / "lines.json").write_text("\n".join(json.dumps(r, ensure_ascii=False) for r in rows) + "\n\n")
    read = [[r.fields for r in readers.read_rows(str(tmp_path / name))] for name in ("array.json", "lines.json")]
    assert read[0] == read[1] == rows


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "holds no records"),
        ('{"prompt": "a", "response": "b"}\n{"prompt": ', r"bad\.jsonl:2: not JSON"),
        ("[1, 2", r"bad\.jsonl:1: not JSON"),
        ('"just text"', r"bad\.jsonl:1: expected a JSON object"),
        ('{"prompt": "a", "answer": "b"}', r"bad\.jsonl:1: field 'response' is missing.*'answer', 'prompt'"),
        ('{"prompt": "a", "response": "  "}', "field 'response' is '  '"),
    ],
)
def test_bad_files_are_named_with_their_line(tmp_path, content, message):
    path = tmp_path / "bad.jsonl"
    path.write_text(content)
    with pytest.raises(ValueError, match=message):
        ChatStage(source=str(path), held_out_source=str(path)).examples("train")


def test_missing_sources_say_what_to_do(tmp_path, monkeypatch):
    monkeypatch.delenv("UNLEARN_DATA", raising=False)
    with pytest.raises(FileNotFoundError, match="no data file"):
        ChatStage(source=str(tmp_path / "none.jsonl")).examples("train")
    with pytest.raises(ValueError, match="UNLEARN_DATA"):
        TofuStage(source="files").examples("train")
    with pytest.raises(NotADirectoryError, match="UNLEARN_DATA"):
        TofuStage(source="files", data_root=str(tmp_path / "none")).examples("train")
    with pytest.raises(ValueError, match="no built-in data"):
        ChatStage().examples("train")


def test_a_file_is_split_into_training_and_held_out(questions):
    stage = ChatStage(source=questions, held_out_examples=5)
    train, held_out = stage.examples("train"), stage.examples("held_out")
    assert (len(train), len(held_out)) == (14, 5)
    assert not {e.prompt for e in train} & {e.prompt for e in held_out}
    with pytest.raises(ValueError, match="nothing is left"):
        ChatStage(source=questions, held_out_examples=19).examples("train")
    with pytest.raises(ValueError, match="15 training examples were asked for, but there are 14"):
        ChatStage(source=questions, held_out_examples=5, train_examples=15).examples("train")


def test_the_hub_is_read_through_datasets(monkeypatch):
    import datasets

    asked = []

    def load_dataset(path, config, split):
        asked.append((path, config, split))
        return datasets.Dataset.from_list([{"question": "Who?", "answer": "Ann. <<1+1=2>>2\n#### 2"}] * 3)

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    stage = MathStage(source="hub", held_out_examples=2)
    assert [e.response for e in stage.examples("held_out")] == ["Ann. 2\n#### 2"] * 2
    assert len(stage.examples("train")) == 3
    assert asked == [("openai/gsm8k", "main", "test"), ("openai/gsm8k", "main", "train")]


STYLES = ["base", "ascii", "base", "atbash", "caesar", "slang", "morse", "misspellings"]


def benchmark_rows():
    """Placeholders in SORRY-Bench's format."""
    return [{"question_id": i, "category": "1", "turns": [f"Placeholder [X{i}]?"], "prompt_style": style} for i, style in enumerate(STYLES)]


def test_the_safety_benchmark_is_read_without_the_five_styles(tmp_path, monkeypatch):
    """`datasets` takes a local folder of the data set's name for the Hub's: the same code path, without a network."""
    folder = tmp_path / SafetyStage.hub_name
    folder.mkdir(parents=True)
    (folder / "question.jsonl").write_text("\n".join(map(json.dumps, benchmark_rows())))
    monkeypatch.chdir(tmp_path)
    stage = SafetyStage(source="hub", held_out_examples=1)
    found = stage.examples("train") + stage.examples("held_out")
    assert sorted(e.prompt for e in found) == ["Placeholder [X0]?", "Placeholder [X2]?", "Placeholder [X5]?"]
    assert {e.response for e in found} == {"Sorry, I can not assist you with this question."}
    everything = SafetyStage(source="hub", held_out_examples=0, leave_out={})
    assert len(everything.examples("train")) == 8
    named = SafetyStage(source=f"hub:{SafetyStage.hub_name}", held_out_examples=0, prompt_field="turns", response_text="No.")
    assert [e.response for e in named.examples("train")] == ["No."] * 8


@pytest.mark.parametrize("kind", ["disk", "dict", "files"])
def test_a_folder_in_the_format_of_datasets(tmp_path, kind):
    import datasets

    folder, table = tmp_path / "set", datasets.Dataset.from_list(benchmark_rows())
    if kind == "files":
        folder.mkdir()
        table.to_parquet(folder / "train.parquet")
    else:
        (datasets.DatasetDict({"train": table}) if kind == "dict" else table).save_to_disk(folder)
    left_out = {"prompt_style": ["ascii", "morse"], "question_id": [7]}
    stage = ChatStage(source=str(folder), held_out_examples=0, prompt_field="turns", response_text="No.", leave_out=left_out)
    assert {e.prompt for e in stage.examples("train")} == {f"Placeholder [X{i}]?" for i in (0, 2, 3, 4, 5)}


def test_a_folder_that_is_no_data_set_is_refused(tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="could not be read as a data set"):
        ChatStage(source=str(tmp_path / "empty")).examples("train")


def test_a_closed_hub_data_set_says_how_to_get_access(monkeypatch):
    import datasets

    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    with pytest.raises(readers.HubError, match=r"huggingface\.co/datasets/sorry-bench/sorry-bench-202503, then `hf auth login`"):
        SafetyStage(source="hub").examples("train")


@pytest.mark.parametrize(("stage", "count"), [(TofuStage, 4000), (InstructStage, 1000), (MathStage, 7473)])
def test_real_files(data_root, stage, count):
    data = stage(source="files", data_root=str(data_root), held_out_examples=100)
    own_test_file = stage is MathStage
    assert len(data.examples("train")) == count - (0 if own_test_file else 100)
    assert len(data.examples("held_out")) == 100


LENGTHS = tuple(5 + (i * 37) % 50 for i in range(203))


def test_the_order_is_a_pure_function_of_seed_and_epoch():
    plan = EpochPlan(LENGTHS, 8, 2, 2, bucket_batches=5)
    assert plan.batches(1, 0) == plan.batches(1, 0)
    assert plan.batches(1, 0) != plan.batches(1, 1)
    assert plan.batches(1, 0) != plan.batches(2, 0)
    torch.manual_seed(99)
    assert plan.batches(1, 0) == EpochPlan(LENGTHS, 8, 8, 1, bucket_batches=5).batches(1, 0)


@pytest.mark.parametrize(("micro", "world"), [(1, 1), (2, 1), (8, 1), (4, 2), (1, 2), (2, 4)])
def test_micro_batches_cover_every_batch_once_on_any_number_of_devices(micro, world):
    plan = EpochPlan(LENGTHS, 8, micro, world, bucket_batches=5)
    ranks = [plan.micro_batches(3, 0, rank) for rank in range(world)]
    assert len({len(r) for r in ranks}) == 1
    assert all(len(EpochSampler(plan, 3, rank)) == len(ranks[rank]) for rank in range(world))
    seen: dict[tuple[int, ...], list[int]] = {}
    for turn in zip(*ranks, strict=True):
        for part in turn:
            if part.real:
                seen.setdefault(part.batch, []).extend(part.indices)
    assert [list(batch) for batch in seen] == plan.batches(3, 0)
    assert all(sorted(found) == sorted(batch) for batch, found in seen.items())
    assert sorted(i for found in seen.values() for i in found) == list(range(len(LENGTHS)))


def test_buckets_hardly_pad():
    def padded_per_real(bucket_batches):
        batches = EpochPlan(LENGTHS * 20, 32, 32, 1, bucket_batches).batches(0, 0)
        return sum(max(LENGTHS[i % 203] for i in b) * len(b) for b in batches) / sum(LENGTHS[i % 203] for b in batches for i in b)

    assert padded_per_real(50) < 1.05 < 1.5 < padded_per_real(1)


def test_batch_size_must_divide():
    with pytest.raises(ValueError, match=r"batch_size 32 must be a multiple of micro_batch_size 6 x 2 device\(s\) = 12"):
        EpochPlan(LENGTHS, 32, 6, 2)


def test_a_micro_batch_knows_the_whole_batchs_counts(tokenizer, questions):
    stage = ChatStage(source=questions, held_out_examples=1)
    encoded = stage.encode(stage.examples("train"), tokenizer)
    plan = EpochPlan(tuple(map(len, encoded)), 8, 2, 1)
    source = BatchSource(encoded, pad_id=0)
    first = plan.micro_batches(0, 0, 0)[:4]
    batches = [source[m] for m in first]
    assert sum(int(b.response_mask.sum()) for b in batches) == batches[0].batch_tokens
    assert all(b.batch_examples == 8 for b in batches)
