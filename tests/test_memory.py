"""The memory a step needs, as it is estimated and as the allocator really gave it out; the command; recipes for large models."""

import dataclasses
import gc
from pathlib import Path

import pytest
import torch
import yaml
from test_backbone import trained_adapter
from torch.profiler import ProfilerActivity, profile

from unlearn_lightning.cli.resolver import Resolver
from unlearn_lightning.main import main
from unlearn_lightning.models.backbone import Backbone, Lora, save_result
from unlearn_lightning.models.scratch import Scratch
from unlearn_lightning.study import memory
from unlearn_lightning.study.memory_command import devices_in, smallest_gpu
from unlearn_lightning.study.study_config import merged

STEP = memory.Step(length=96, response=64, micro_batch_size=4)


@pytest.fixture(scope="module")
def scratch(corpus):
    return Scratch("llama", hidden=128, layers=4, intermediate=384, heads=4, kv_heads=2, vocab_size=320, corpus=(corpus,))


def measured_peak(net, step):
    """The most bytes torch's CPU allocator had given out during two steps, counted from an empty start; weights included."""
    gc.collect()
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as events:
        there = sum(p.numel() * p.element_size() for p in [*net.parameters(), *net.buffers()])
        optimizer = torch.optim.AdamW([p for p in net.parameters() if p.requires_grad], weight_decay=0.0, foreach=True)
        for _ in range(2):
            memory.passes(net, optimizer, step)
            optimizer.step()
    now = peak = 0
    for event in sorted(events.profiler.kineto_results.events(), key=lambda e: e.start_ns()):
        if event.name() == "[memory]":
            now += event.nbytes()
            peak = max(peak, now)
    return there + peak


CASES = {
    "all weights": ({"lora": None}, {}),
    "lora, checkpointing": ({"gradient_checkpointing": True}, {}),
    "nf4 in bfloat16": ({"quantization": "nf4", "dtype": "bfloat16"}, {"autocast": True}),
}


@pytest.mark.parametrize("case", CASES)
def test_the_estimate_is_what_a_step_really_takes(case, scratch, tmp_path):
    """To 1%, for a model of four layers; the estimate is made from two and three."""
    settings, more = CASES[case]
    whole = Backbone(scratch=scratch, lora=None, seed=1)
    save_result(whole.load_base(), whole.load_tokenizer(), tmp_path)
    backbone = Backbone(**{"model": str(tmp_path / "model"), "lora": Lora(rank=8), **settings})
    if backbone.quantization:
        # The estimate is that of unlearning, where a stage's adapter is stacked below the trained one.
        adapter = trained_adapter(backbone.model, tmp_path / "stage", Lora(rank=8))[1]
        backbone = dataclasses.replace(backbone, adapter=adapter)
    step = dataclasses.replace(STEP, **more)
    assert memory.step_memory(backbone, step).total == pytest.approx(measured_peak(backbone.load_for_unlearning(), step), rel=0.01)


def test_layers_shards_and_copies():
    """Two layers take 30 + 2 x 5 bytes of weights, and so on; ten layers on four devices."""
    few, more = memory.Memory(40, 0, 40, 80, 100, 30), memory.Memory(45, 0, 45, 90, 107, 32)

    def on(devices, sharded, **more_of_it):
        step = dataclasses.replace(STEP, devices=devices, sharded=sharded)
        return memory.spread(few, more, 10, step, **more_of_it)

    assert on(1, True) == memory.Memory(80, 0, 80, 160, 156, 46)
    assert on(4, False) == memory.Memory(80, 0, 160, 160, 156, 46)
    assert on(4, True) == memory.Memory(20, 0, 20, 40, 156, 12, gathered=60 + 3 * 10)
    assert on(4, True).total == 326
    assert on(4, True, loads_whole=True).loading == 80
    # Float32 shards; whole weights and gradients in bfloat16, and gradients in float32 while they are added up.
    assert on(4, True, narrow=True) == memory.Memory(40, 0, 40, 80, 156, 23, gathered=30 + 3 * 30 + 3 * (5 + 3 * 5))
    assert memory.Memory(20, 0, 0, 0, 0, loading=80).total == 80
    assert memory.Memory(20, 1, 2, 3, 10, update=50, gathered=20).total == 76


def test_the_command_prints_a_table_and_names_what_is_wrong(scratch, tmp_path, capsys):
    file = tmp_path / "small.yaml"
    shape = {**dataclasses.asdict(scratch), "corpus": list(scratch.corpus)}
    file.write_text(yaml.safe_dump({"model": {"init_args": {"backbone": {"scratch": shape, "lora": None}}}}))
    ddp = Path(__file__).parents[1] / "configs/trainers/ddp.yaml"
    assert main(["memory", str(file), "--length", "64", "--response", "32", "--devices", "2", "--strategy", "fsdp2"]) == 0
    row = capsys.readouterr().out.splitlines()[2]
    assert row.startswith("| small (float32, 2 x fsdp2) | all | 0.00 |")
    assert row.count("| 24 |") == 2
    assert [smallest_gpu(int(gigabytes * 1e9)) for gigabytes in (21.6, 21.7, 126, 127)] == ["24", "40", "141", "none"]
    for arguments, complaint in [
        ([str(ddp)], "holds no model.init_args.backbone"),
        ([str(file), "--strategy", "deepspeed"], "strategy 'deepspeed' is not known here: ddp and fsdp2 are."),
        ([str(file), "--length", "8"], "response at most length"),
    ]:
        assert main(["memory", *arguments]) == 2
        assert complaint in capsys.readouterr().err


@pytest.mark.parametrize("trainer", ["fsdp2_8gpus", "fsdp2_4x8gpus"])
@pytest.mark.parametrize("backbone", ["llama3.1-70b", "llama3.1-70b-nf4"])
def test_the_recipes_for_70b_parse(backbone, trainer):
    files = ("objectives/npo.yaml", f"backbones/{backbone}.yaml", f"trainers/{trainer}.yaml")
    configs = [yaml.safe_load((Path(__file__).parents[1] / "configs" / file).read_text()) for file in files]
    resolved = Resolver().resolve(merged(*configs))
    assert resolved["trainer"]["strategy"] == "fsdp2"
    assert devices_in(resolved["trainer"]) == {"fsdp2_8gpus": 8, "fsdp2_4x8gpus": 32}[trainer]
    data = resolved["data"]["init_args"]
    assert data["batch_size"] % (data["micro_batch_size"] * devices_in(resolved["trainer"])) == 0
    assert resolved["model"]["init_args"]["backbone"]["gradient_checkpointing"]
