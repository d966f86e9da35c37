"""A real pretrained model, SmolLM2-135M-Instruct, against plain transformers: what it answers, and how likely it finds a response."""

from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from unlearn_lightning.data import Encoder, Example, collate
from unlearn_lightning.inference.generation import generate
from unlearn_lightning.inference.likelihood import token_log_likelihood
from unlearn_lightning.models.backbone import Backbone, Lora

FOLDER = Path(__file__).parents[1] / "models" / "smollm2-135m-instruct"
EXAMPLES = [
    Example("a", "What is the capital of France?", "The capital of France is Paris."),
    Example("b", "Name a colour.", "Blue"),
    Example("c", "What is 12 + 30?", "12 + 30 = 42.\n#### 42"),
]


@pytest.fixture(scope="module")
def backbone():
    if not (FOLDER / "config.json").is_file():
        pytest.skip("No model folder: scripts/local_model makes it")
    return Backbone(model=str(FOLDER), lora=Lora(rank=4, alpha=8))


def test_answers_and_likelihoods_are_those_of_plain_transformers(backbone):
    net, tokenizer = backbone.load_for_fine_tuning().eval(), backbone.load_tokenizer()
    plain, plain_tokenizer = AutoModelForCausalLM.from_pretrained(FOLDER), AutoTokenizer.from_pretrained(FOLDER)
    encoded = Encoder(tokenizer).encode(EXAMPLES)
    batch = collate(encoded, tokenizer.pad_token_id)
    with torch.no_grad():
        mine = token_log_likelihood(net, batch.input_ids, batch.attention_mask, batch.response_mask).sum(-1)
    for example, value in zip(EXAMPLES, mine.tolist(), strict=True):
        turns = [{"role": "user", "content": example.prompt}]
        start = plain_tokenizer.apply_chat_template(turns, add_generation_prompt=True, return_tensors="pt", return_dict=True)["input_ids"]
        end = plain_tokenizer(example.response + "<|im_end|>", add_special_tokens=False, return_tensors="pt")["input_ids"]
        with torch.no_grad():
            logits = plain(torch.cat([start, end], 1)).logits[0, start.shape[1] - 1 : -1]
        expected = logits.log_softmax(-1).gather(1, end[0][:, None]).sum()
        assert value == pytest.approx(float(expected), abs=1e-3)
    ((answer,),) = generate(net, tokenizer, [Encoder(tokenizer).prompt_ids(EXAMPLES[0].prompt)], 16)
    assert answer == "The capital of France is Paris."
