"""The same claims on CUDA: 4-bit, bf16-mixed, resume, and two GPUs with nccl. Skipped where there is no GPU."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from bitsandbytes.nn import Linear4bit
from study_runs import fit, run_json, settings, weights
from test_backbone import BATCH, trained_adapter
from test_stopped_runs import Stop, StopAt

from unlearn_lightning.cli import lightning_cli
from unlearn_lightning.inference.likelihood import token_log_likelihood
from unlearn_lightning.models.adapters import eval_mode
from unlearn_lightning.models.backbone import Backbone, Lora, save_result
from unlearn_lightning.models.scratch import Scratch

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")]
GPU = {"accelerator": "gpu", "devices": 1}
TWO_GPUS = pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two CUDA devices")


@pytest.fixture
def stacked(corpus, tmp_path):
    """A backbone in 4-bit under a stage's adapter, wide enough for one block of 64 weights."""
    scratch = Scratch("llama", hidden=64, layers=2, intermediate=128, heads=4, kv_heads=2, vocab_size=320, corpus=(corpus,))
    whole = Backbone(scratch=scratch, lora=None, seed=1)
    save_result(whole.load_base(), whole.load_tokenizer(), tmp_path / "base")
    base = str(tmp_path / "base/model")
    adapter = trained_adapter(base, tmp_path / "stage", Lora(rank=4, alpha=8))[1]
    return {"model": base, "scratch": None, "adapter": adapter, "quantization": "nf4", "lora": {"rank": 2, "alpha": 8}}


def run(corpus, questions, folder, backbone, cls="NPO", trainer=None, micro=8):
    # Adam divides by the gradient's size: where that is rounding noise, so would be the step, were eps not larger.
    init = {"backbone": backbone, "optimizer": {"init_args": {"eps": 1e-5}}}
    more = {"model": {"init_args": init}, "checkpoint_every_n_steps": 1, "trainer": {**GPU, **(trainer or {})}}
    config = settings(corpus, questions, folder, cls, **more)
    config["data"]["init_args"]["micro_batch_size"] = micro
    return config


def same(found, expected, tolerance):
    mine, other = weights(found), weights(expected)
    assert mine.keys() == other.keys()
    for key, value in other.items():
        torch.testing.assert_close(mine[key], value, atol=tolerance, rtol=0, msg=lambda text, key=key: f"{key}: {text}")


def test_4_bit_weights_lie_on_the_gpu_and_evaluation_changes_nothing(stacked):
    net = Backbone(**{**stacked, "lora": Lora(rank=2), "dtype": "bfloat16"}).load_for_unlearning().cuda()
    layers = [module for module in net.modules() if isinstance(module, Linear4bit)]
    assert {layer.weight.device.type for layer in layers} == {"cuda"}
    assert {layer.weight.quant_state.absmax.device.type for layer in layers} == {"cuda"}
    batch = BATCH.to("cuda")

    def gradients():
        with torch.autocast("cuda", torch.bfloat16):
            token_log_likelihood(net, batch.input_ids, batch.attention_mask, batch.response_mask).sum().backward()
        found = [p.grad.clone() for p in net.parameters() if p.grad is not None]
        net.zero_grad()
        return found

    before = gradients()
    with torch.no_grad(), eval_mode(net):
        token_log_likelihood(net, batch.input_ids, batch.attention_mask, batch.response_mask)
    assert before
    for one, other in zip(before, gradients(), strict=True):
        torch.testing.assert_close(other, one, atol=1e-6, rtol=1e-3)


def test_bf16_in_4_bit_has_nearly_the_values_and_gradients_of_float32_on_the_cpu(stacked):
    def measured(device, **more):
        net = Backbone(**{**stacked, "lora": Lora(rank=2), "seed": 1, **more}).load_for_unlearning().to(device)
        batch = BATCH.to(device)
        with torch.autocast(device, torch.bfloat16, enabled=device == "cuda"):
            values = token_log_likelihood(net, batch.input_ids, batch.attention_mask, batch.response_mask)
        values.sum().backward()
        # The other matrix's gradient is 0 at first, as this one is.
        gradient = torch.cat([p.grad.flatten() for name, p in net.named_parameters() if "lora_B.default" in name])
        return values.detach().cpu(), gradient.cpu()

    (values, gradient), (expected, exact) = measured("cuda", dtype="bfloat16", gradient_checkpointing=True), measured("cpu")
    # On a CPU in bfloat16 they are 0.001 nats and 1% apart.
    torch.testing.assert_close(values, expected, atol=2e-2, rtol=0)
    assert (gradient - exact).norm() < 0.1 * exact.norm()


def test_bf16_mixed_in_4_bit_trains(stacked, corpus, questions, tmp_path):
    backbone = {**stacked, "dtype": "bfloat16", "gradient_checkpointing": True}
    fit(run(corpus, questions, tmp_path / "gpu", backbone, trainer={"precision": "bf16-mixed"}))
    moved = {key: value.abs().max() for key, value in weights(tmp_path / "gpu").items() if "lora_B" in key}
    assert min(moved.values()) > 1e-3, "lora_B starts at 0 and was trained"
    assert 0 < run_json(tmp_path / "gpu")["peak_memory_bytes"] <= torch.cuda.max_memory_allocated()


def test_a_stopped_run_goes_on_to_the_same_weights(stacked, corpus, questions, tmp_path):
    fit(run(corpus, questions, tmp_path / "straight", stacked))
    with pytest.raises(Stop):
        lightning_cli.run({"subcommand": "fit", "fit": run(corpus, questions, tmp_path / "stopped", stacked)}, callbacks=[StopAt(3)])
    fit(run(corpus, questions, tmp_path / "stopped", stacked))
    same(tmp_path / "stopped", tmp_path / "straight", tolerance=1e-5)


@TWO_GPUS
@pytest.mark.parametrize("strategy", ["ddp", "fsdp2"])
def test_two_gpus_end_with_the_weights_of_one_and_resume_on_one(strategy, stacked, corpus, questions, tmp_path):
    two = {"devices": 2, "strategy": strategy}
    full = {"lora": None}
    entries = [
        {"config": run(corpus, questions, tmp_path / "two 4-bit", stacked, trainer=two, micro=2)},
        {"config": run(corpus, questions, tmp_path / "two full", full, "StageFineTuning", trainer=two, micro=2)},
        {"config": run(corpus, questions, tmp_path / "resumed", stacked, trainer=two, micro=2), "stop": 3},
    ]
    (tmp_path / "list.json").write_text(json.dumps(entries))
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    done = subprocess.run(
        [*command, str(Path(__file__).parent / "many_runs.py"), str(tmp_path / "list.json")],
        env={**os.environ, "OMP_NUM_THREADS": "1"}, capture_output=True, text=True, timeout=280, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-4000:]
    fit(run(corpus, questions, tmp_path / "resumed", stacked))
    fit(run(corpus, questions, tmp_path / "one 4-bit", stacked))
    fit(run(corpus, questions, tmp_path / "one full", full, "StageFineTuning"))
    same(tmp_path / "two 4-bit", tmp_path / "one 4-bit", tolerance=1e-4)
    same(tmp_path / "two full", tmp_path / "one full", tolerance=1e-4)
    same(tmp_path / "resumed", tmp_path / "one 4-bit", tolerance=1e-4)
