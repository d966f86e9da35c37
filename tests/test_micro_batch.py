"""As many examples at once as fit the memory at hand: which number that is, that it is told, and that the step stays the same."""

import os

import pytest
import torch
from study_runs import by_two_processes, fit, logged_steps, run_json, settings, weights

from unlearn_lightning.data import ChatStage, micro_batch
from unlearn_lightning.data.examples import longest
from unlearn_lightning.models import step_size
from unlearn_lightning.models.backbone import Backbone, Lora
from unlearn_lightning.models.scratch import Scratch
from unlearn_lightning.study import memory


@pytest.mark.parametrize(
    ("free", "expected"),
    [(None, 12), (10**9, 12), (1000, 10), (700, 5), (100, 1), (0, 1)],
)
def test_the_largest_part_that_divides_the_batch_and_fits(free, expected):
    examples = 10 if expected in (10, 5) else 12
    assert step_size.largest_share(examples, lambda rows: 80 * rows, free) == expected


@pytest.mark.parametrize("lora", [None, Lora(rank=8)], ids=["all weights", "lora"])
def test_the_formula_is_no_less_than_what_a_step_takes(lora, corpus):
    backbone = Backbone(scratch=Scratch("llama", 128, 4, 384, 4, 2, 4096, corpus=(corpus,)), lora=lora)
    size = step_size.StepSize.of(backbone)
    step = memory.Step(length=96, response=64, micro_batch_size=16)
    config = memory.Estimator().architecture(vars(backbone) | {"scratch": vars(backbone.scratch)})
    config.vocab_size = 4096
    few, more = (memory.simulate(backbone, config, layers, step) for layers in (2, 3))
    taken = memory.spread(few, more, 4, step).total
    assert taken <= size.fixed + 16 * size.of_example(96, 64) <= 2 * taken


def test_what_fits_is_chosen_told_and_gives_the_same_step(corpus, questions, tmp_path, monkeypatch, caplog):
    null = {"data": {"init_args": {"micro_batch_size": None}}}
    fit(settings(corpus, questions, tmp_path / "whole", **null))
    assert run_json(tmp_path / "whole")["computed_with"]["micro_batch_size"] == 8
    asked = []
    size = step_size.StepSize.of(Backbone(scratch=Scratch(hidden=32, layers=2, intermediate=64, heads=4, vocab_size=320), lora=None))

    def scarce(device, processes):
        asked.append((device.type, processes))
        return round((size.fixed + 3 * size.of_example(40, 20)) / step_size.USABLE)

    monkeypatch.setattr(micro_batch, "memory_at_hand", scarce)
    with caplog.at_level("INFO"):
        fit(settings(corpus, questions, tmp_path / "parts", **null))
    assert asked == [("cpu", 1)]
    chosen = run_json(tmp_path / "parts")["computed_with"]["micro_batch_size"]
    assert chosen in (1, 2, 4)
    assert f"micro_batch_size: {chosen} of 8 examples at once" in caplog.text
    assert run_json(tmp_path / "whole")["key"] == run_json(tmp_path / "parts")["key"]
    whole, parts = weights(tmp_path / "whole"), weights(tmp_path / "parts")
    for name, value in whole.items():
        torch.testing.assert_close(parts[name], value, atol=1e-5, rtol=0)


def test_a_control_group_bounds_what_a_process_can_have(tmp_path, monkeypatch):
    (tmp_path / "memory.max").write_text("1000000\n")
    (tmp_path / "memory.current").write_text("700000\n")
    (tmp_path / "memory.stat").write_text("anon 300000\ninactive_file 200000\n")
    monkeypatch.setattr(step_size, "CGROUP", tmp_path)
    assert step_size.memory_at_hand(torch.device("cpu"), processes=2) == 250_000
    (tmp_path / "memory.max").write_text("max\n")
    assert step_size.memory_at_hand(torch.device("cpu")) > 500_000


def test_two_processes_agree_on_what_fits_the_one_with_less_memory(corpus, questions, tmp_path, monkeypatch):
    backbone = Backbone(scratch=Scratch(hidden=32, layers=2, intermediate=64, heads=4, vocab_size=320, corpus=(corpus,)), lora=None)
    stage, size = ChatStage(source=questions, held_out_source=questions), step_size.StepSize.of(backbone)
    each = size.of_example(*longest(stage.encode(stage.examples("train"), backbone.load_tokenizer())))

    # Memory for a process's whole share of four, and on the second one for hardly more than two.
    scarce_on = [round((size.fixed + (examples + 0.5) * each) / step_size.USABLE) for examples in (4, 2)]
    monkeypatch.setattr(micro_batch, "memory_at_hand", lambda device, processes: scarce_on[int(os.environ["RANK"])])
    two = {"trainer": {"devices": 2, "strategy": "ddp"}, "data": {"init_args": {"micro_batch_size": None}}}
    said = by_two_processes("fit", settings(corpus, questions, tmp_path / "two", **two))
    assert run_json(tmp_path / "two")["computed_with"]["micro_batch_size"] == 2
    assert [text.count("micro_batch_size: 2 of 4 examples at once on each device") for text in said] == [1, 0], "told once"
    assert f" of the {scarce_on[1] / 1e9:.1f} GB that are free" in said[0], "the memory that decided"
    fit(settings(corpus, questions, tmp_path / "one", data={"init_args": {"micro_batch_size": 8}}))
    two, one = logged_steps(tmp_path / "two"), logged_steps(tmp_path / "one")
    assert two.keys() == one.keys()
    for step, row in one.items():
        assert two[step] == pytest.approx(row, abs=1e-4), step
    assert run_json(tmp_path / "two")["key"] == run_json(tmp_path / "one")["key"]
    whole, shared = weights(tmp_path / "one"), weights(tmp_path / "two")
    for name, value in whole.items():
        torch.testing.assert_close(shared[name], value, atol=1e-5, rtol=0)
