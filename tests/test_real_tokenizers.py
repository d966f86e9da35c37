"""Published tokenizers and chat templates: prompt and response, encoded apart, are the tokens of the whole rendered conversation."""

import json
import os
from functools import lru_cache
from pathlib import Path

import pytest
from transformers import AutoTokenizer

from unlearn_lightning.data import Encoder, Example, MathStage, SafetyStage, TofuStage
from unlearn_lightning.inference.chat_format import DATE
from unlearn_lightning.inference.generation import end_tokens
from unlearn_lightning.models.backbone import Backbone

ROOT = Path(__file__).parents[1]
FOLDERS = {name: ROOT / "build" / "tokenizers" / name for name in ("llama3_1", "qwen3", "gemma3", "llama2")}
FOLDERS["smollm2"] = ROOT / "models" / "smollm2-135m-instruct"
WITH_TEMPLATE = [name for name in FOLDERS if name != "llama2"]
HARD = [
    ("Who wrote it?", "Ann did."),
    ("  Who?  ", "Ann, in 1987. "),
    ("Wie heißt die Straße?", "Größe: 12 m² — «ja», naïve café."),
    ("名前は何ですか。", "山田です。"),
    ("اكتب", "نعم\u200f."),
    ("Smile", "😀👩‍👩‍👧 ok"),
    ("Code", "def f(x):\n    return x\n\n\nprint(f(1))"),
    ("Digits", "1234567890 + 0.5 = 1,234,567,890.5\n#### 1234567890.5"),
    ("tabs\tand\r\nreturns", "a\tb\r\nc"),
    ("A question\n", "1. one\n2. two"),
    ("", "Nothing was asked."),
    ("x", "y"),
    ("What is\u00a0this?", "A non-breaking\u00a0space."),
    ("Quote", "\"Ann's\" 'book' `code` $5 %d {x} {{ y }} {% z %}"),
]


@lru_cache
def tokenizer_of(name):
    if not (FOLDERS[name] / "tokenizer.json").is_file():
        pytest.skip(f"No tokenizer {name}: scripts/{'local_model' if name == 'smollm2' else 'tokenizers'} fetches it")
    return AutoTokenizer.from_pretrained(FOLDERS[name])


def examples():
    """Texts that tokenizers treat in ways of their own, the built-in stages' texts, and real ones where there are any."""
    found = [Example(f"hard-{i}", *pair) for i, pair in enumerate(HARD)]
    for stage in (SafetyStage(), TofuStage(), MathStage()):
        found += stage.examples("train")[:20]
    if root := os.environ.get("UNLEARN_DATA"):
        lines = Path(root, "gsm8k", "test.jsonl").read_text().splitlines()[:60]
        found += [Example(f"gsm8k-{i}", row["question"], row["answer"]) for i, row in enumerate(map(json.loads, lines))]
    return found


@pytest.mark.parametrize("name", WITH_TEMPLATE)
def test_the_encoder_gives_the_tokens_of_the_whole_conversation(name):
    tokenizer = tokenizer_of(name)
    encoder, ends = Encoder(tokenizer, max_length=4096), set(end_tokens(object(), tokenizer))
    for example, encoded in zip(texts := examples(), encoder.encode(texts), strict=True):
        turns = [{"role": "user", "content": example.prompt}, {"role": "assistant", "content": example.response}]
        whole = tokenizer.apply_chat_template(turns, return_dict=True, date_string=DATE)["input_ids"]
        mine = [*encoded.prompt_ids, *encoded.response_ids]
        assert mine == whole[: len(mine)], example
        # What is left is white space after the end of turn, which never has to be said.
        assert tokenizer.decode(whole[len(mine) :]).strip() == "", example
        assert encoded.response_ids[-1] in ends
        generated = tokenizer.apply_chat_template(turns[:1], add_generation_prompt=True, date_string=DATE, return_dict=True)["input_ids"]
        assert encoded.prompt_ids[: len(generated)] == generated


@pytest.mark.parametrize("name", WITH_TEMPLATE)
def test_typed_special_tokens_are_text(name):
    tokenizer = tokenizer_of(name)
    special = [token for token in tokenizer.all_special_tokens if token][:4]
    (encoded,) = Encoder(tokenizer).encode([Example("x", f"Typed {special[0]} here", f"It said {' and '.join(special)}.")])
    assert tokenizer.decode(encoded.response_ids[:-1]).startswith("It said")
    assert not set(encoded.response_ids[:-1]) & set(tokenizer.all_special_ids)


def test_a_tokenizer_without_a_template_is_refused_with_the_setting_that_brings_one():
    with pytest.raises(ValueError, match=r"chat_template_from") as caught:
        Backbone(model=tokenizer_of("llama2").name_or_path).load_tokenizer()
    assert "\n" not in str(caught.value)
