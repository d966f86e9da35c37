"""A tokenizer's file is what a model was trained with: it is read back with the same tokens, or a warning says that it is not."""

import json
import shutil
import warnings

import pytest
from transformers import AutoTokenizer, PreTrainedTokenizerFast, Qwen2Tokenizer

from unlearn_lightning.models import chat_tokenizer
from unlearn_lightning.models.backbone import Backbone, save_result
from unlearn_lightning.models.places import BASES
from unlearn_lightning.models.scratch import Scratch, corpus_fingerprint, corpus_texts, train_tokenizer

WORLD = ("world",)
SHAPE = {"hidden": 32, "layers": 1, "intermediate": 64, "heads": 4, "vocab_size": 1024, "corpus": WORLD}


@pytest.fixture(autouse=True)
def nothing_read_before():
    chat_tokenizer.load_tokenizer.cache_clear()


@pytest.mark.parametrize("architecture", ["llama", "qwen2"])
def test_a_tokenizer_trained_for_an_architecture_gives_its_tokens_in_plain_transformers(architecture, tmp_path):
    backbone = Backbone(scratch=Scratch(architecture, **SHAPE), lora=None)
    trained = backbone.load_tokenizer()
    save_result(backbone.load_base(), trained, tmp_path)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        ours = Backbone(model=str(tmp_path / "model"), lora=None).load_tokenizer()
    plain = AutoTokenizer.from_pretrained(tmp_path / "model")
    for text in [chat_tokenizer.PLAIN, "10 - 4 = 6\n#### 12", *corpus_texts(WORLD)[::97]]:
        assert plain(text)["input_ids"] == ours(text)["input_ids"] == trained(text)["input_ids"]


@pytest.mark.parametrize("name", sorted(folder.name for folder in BASES.iterdir()))
def test_the_shipped_bases_are_read_with_the_tokens_of_their_files(name):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        Backbone(model=f"builtin:{name}").load_tokenizer()


def test_tokens_that_transformers_makes_otherwise_than_the_file_says_are_told(tmp_path):
    """A Qwen2 whose tokenizer is another one's; a name other than Qwen2's in tokenizer_config.json does not help."""
    folder = tmp_path / "model"
    shutil.copytree(BASES / "tiny-llama", folder)
    config = json.loads((folder / "config.json").read_text()) | {"model_type": "qwen2", "architectures": ["Qwen2ForCausalLM"]}
    (folder / "config.json").write_text(json.dumps(config))
    said = r"reads it as Qwen2Tokenizer, which cuts .* \(.* 1 2 .* for .*12 .*\).*copy the tokenizer's files into a folder without"
    with pytest.warns(UserWarning, match=said):
        told = Backbone(model=str(folder)).load_tokenizer()
    assert isinstance(told, Qwen2Tokenizer)
    # What the warning advises gives the file's tokens.
    (apart := tmp_path / "tokenizer").mkdir()
    for file in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
        shutil.copy(folder / file, apart)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        mended = Backbone(model=str(folder), tokenizer=str(apart)).load_tokenizer()
    own = PreTrainedTokenizerFast(tokenizer_file=str(folder / "tokenizer.json"))
    assert mended(chat_tokenizer.PLAIN)["input_ids"] == own(chat_tokenizer.PLAIN)["input_ids"] != told(chat_tokenizer.PLAIN)["input_ids"]


def test_the_rule_by_which_words_are_cut_is_in_the_key():
    assert corpus_fingerprint(WORLD, "llama") != corpus_fingerprint(WORLD, "qwen2")
    llama, qwen2 = (train_tokenizer(Scratch(architecture, **SHAPE)) for architecture in ("llama", "qwen2"))
    assert llama(" 12")["input_ids"] != qwen2(" 12")["input_ids"]
