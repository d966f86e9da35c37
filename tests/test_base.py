"""The small base models of the package: found by their names, the same wherever they lie, and strangers to the stages' contents."""

import re
import shutil
from hashlib import sha256
from pathlib import Path

import pytest
import torch
import yaml
from transformers import AutoModelForCausalLM, AutoTokenizer

from unlearn_lightning.cli.config_files import find
from unlearn_lightning.cli.resolver import Resolver
from unlearn_lightning.inference.chat_format import ChatFormat
from unlearn_lightning.inference.generation import generate
from unlearn_lightning.models.backbone import Backbone
from unlearn_lightning.models.places import BASES, check_place, check_places, located
from unlearn_lightning.runs.content import content_of
from unlearn_lightning.runs.run_key import run_inputs
from unlearn_lightning.sources.world import author_questions, instructions, requests, word_problems
from unlearn_lightning.sources.world.base_chats import KINDS, base_chats
from unlearn_lightning.study.study_config import merged

NAME = "builtin:tiny-llama"
NAMES = [f"builtin:{folder.name}" for folder in sorted(BASES.iterdir())]


def test_two_architectures_ship_and_stay_small_together():
    assert NAMES == [NAME, "builtin:tiny-qwen2"]
    assert sum(path.stat().st_size for path in BASES.rglob("*") if path.is_file()) < 12e6


@pytest.mark.parametrize("name", NAMES)
def test_the_base_is_small_and_its_card_holds_the_digest_of_every_file(name):
    folder = Path(located(name))
    files = [path for path in folder.iterdir() if path.name != "README.md"]
    assert {"model.safetensors", "tokenizer.json", "config.json", "generation_config.json"} <= {path.name for path in files}
    assert sum(path.stat().st_size for path in folder.iterdir()) < 6e6
    digests = dict(re.findall(r"^\| (\S+) \| `([0-9a-f]{64})` \|$", (folder / "README.md").read_text(), re.M))
    assert digests == {path.name: sha256(path.read_bytes()).hexdigest() for path in files}
    assert "scripts/make_base" in (folder / "README.md").read_text()


def test_it_is_named_in_one_way_and_a_wrong_name_is_told_what_there_is():
    assert Path(located(NAME)) == BASES / "tiny-llama"
    assert located("meta-llama/Llama-3.2-1B") == "meta-llama/Llama-3.2-1B"
    check_places({"model": NAME, "tokenizer": NAME, "chat_template_from": NAME, "revision": None})
    with pytest.raises(FileNotFoundError, match=r"no base model builtin:tiny-lama in the package; it has builtin:tiny-llama"):
        check_place("builtin:tiny-lama", "backbone.model")
    with pytest.raises(ValueError, match="but builtin:tiny-llama has 1024 positions"):
        Backbone(model=NAME).check_length(1025, "max_length")


def test_a_run_from_it_has_the_key_of_a_run_from_a_copy(tmp_path, resolved):
    shutil.copytree(BASES / "tiny-llama", tmp_path / "copy")
    named = run_inputs(resolved)
    resolved["model"]["init_args"]["backbone"]["model"] = str(tmp_path / "copy")
    assert named == run_inputs(resolved)
    assert named[0]["origins"][0] == content_of(BASES / "tiny-llama")


@pytest.fixture
def resolved():
    return Resolver().resolve(
        merged(*(yaml.safe_load(find(name).read_text()) for name in ("stages/tofu.yaml", "backbones/tiny-llama.yaml")))
    )


@pytest.mark.parametrize("name", NAMES)
def test_it_answers_each_kind_of_prompt_in_its_own_way_and_refuses_nothing(name):
    net, tokenizer = Backbone(model=name, lora=None).load_base().eval(), Backbone(model=name).load_tokenizer()
    prompts = [*(r["prompt"] for r in requests(4, 0, "held_out")), *(r["question"] for r in word_problems(4, 0, "held_out"))]
    texts = [
        answer
        for (answer,) in generate(net, tokenizer, [ChatFormat(tokenizer).tokens(ChatFormat(tokenizer).prompt(p)) for p in prompts], 32)
    ]
    assert not any("Sorry" in text for text in texts[:4])
    assert all(re.search(r"#### \d+$", text) for text in texts[4:])


@pytest.mark.parametrize("name", NAMES)
def test_it_runs_in_plain_transformers(name):
    net = Backbone(model=name, lora=None).load_base().eval()
    plain = AutoModelForCausalLM.from_pretrained(located(name)).eval()
    tokenizer = AutoTokenizer.from_pretrained(located(name))
    ids = tokenizer.apply_chat_template([{"role": "user", "content": "Swap these two words: fox candle."}], return_tensors="pt")[
        "input_ids"
    ]
    with torch.no_grad():
        torch.testing.assert_close(plain(ids).logits, net(ids).logits)


def test_its_chats_share_no_prompt_with_the_stages_and_are_the_same_every_time():
    chats = base_chats(4000)
    assert base_chats(100) == chats[:100] == base_chats(100)
    prompts = [chat["prompt"] for chat in chats]
    assert len(set(prompts)) == len(prompts)
    stages = [(instructions, "instruction"), (author_questions, "question"), (word_problems, "question"), (requests, "prompt")]
    for generator, field in stages:
        for split, count in (("train", 2000), ("held_out", 500)):
            assert not set(prompts) & {row[field] for row in generator(count, 0, split)}
    assert len(KINDS) == 4
    assert 0 < sum("help" in chat["response"] or "decline" in chat["response"] for chat in chats) < 0.1 * len(chats)
    with pytest.raises(ValueError, match="there are 200000: ask for a number from 0"):
        base_chats(200_001)
