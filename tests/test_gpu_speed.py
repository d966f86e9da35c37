"""What only a CUDA device can show; skipped elsewhere. `pytest -m gpu` runs them."""

import pytest
import torch
from test_compile import outcome
from test_likelihood import ENCODED, net_of
from test_shortcuts import ROWS, assert_same

from unlearn_lightning.data import collate
from unlearn_lightning.inference.generation import generate
from unlearn_lightning.inference.likelihood import token_log_likelihood
from unlearn_lightning.models.backbone import Backbone

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")]


@pytest.mark.parametrize("way", ["chunked", "liger"])
def test_cross_entropy_on_cuda_has_the_same_values_and_gradients(make_backbone, lora, way):
    if way == "liger":
        pytest.importorskip("liger_kernel")
    net, batch, found = net_of(make_backbone, "llama", lora).cuda(), collate(ENCODED, pad_id=0).to("cuda"), {}
    for each in ("full", way):
        net.zero_grad()
        values = token_log_likelihood(net, batch.input_ids, batch.attention_mask, batch.response_mask, each)
        (values * torch.arange(values.numel(), device="cuda").view_as(values)).sum().backward()
        found[each] = [values.detach(), *(p.grad.clone() for p in net.parameters() if p.grad is not None)]
    for one, other in zip(found["full"], found[way], strict=True):
        torch.testing.assert_close(one, other, atol=1e-4, rtol=1e-4)


def test_shortcuts_change_neither_values_nor_gradients(make_backbone, lora):
    assert_same(net_of(make_backbone, "llama", lora).cuda(), collate(ROWS, pad_id=0).to("cuda"), tolerance=1e-4)


def test_inductor_gives_the_same_result(make_backbone, lora):
    plain, texts = outcome(make_backbone(lora=lora), "cuda")
    compiled, compiled_texts = outcome(make_backbone(lora=lora, compile="inductor"), "cuda")
    for one, other in zip(plain, compiled, strict=True):
        torch.testing.assert_close(other, one, atol=1e-4, rtol=1e-4)
    assert compiled_texts == texts


def test_generation_is_that_of_the_cpu(make_backbone):
    net, tokenizer = net_of(make_backbone, "llama", None), make_backbone().load_tokenizer()
    prompts = [[6, 7, 8], [9], [11, 12, 13, 14]]
    on_cpu = generate(net, tokenizer, prompts, 12, attempts=3, temperature=1.0, batch_size=4)
    assert generate(net.cuda(), tokenizer, prompts, 12, attempts=3, temperature=1.0, batch_size=4) == on_cpu


def test_a_4_bit_step_takes_less_memory_with_chunked_cross_entropy(tmp_path):
    from scripts.benchmarks.gpu import TINY, TimedStep, random_model
    from scripts.benchmarks.measure import peak_bytes
    from scripts.benchmarks.setting import paper_like

    name = random_model(tmp_path, TINY, 128_256)
    batches = [collate(paper_like(32), 0).to("cuda")]
    peaks = {}
    for way in ("full", "chunked"):
        step = TimedStep(Backbone(model=name, dtype="bfloat16", quantization="nf4", cross_entropy=way), torch.device("cuda"))
        step(batches)
        peaks[way] = peak_bytes(lambda step=step: step(batches))
    assert peaks["chunked"] < 0.6 * peaks["full"]
