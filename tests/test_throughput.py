"""Throughput's counts by hand, and its lines in a run's metrics."""

import csv

import pytest
import torch
from study_runs import fit, run_json, settings
from torch.utils.flop_counter import FlopCounterMode

from callbacks import Throughput
from unlearn_lightning.data import Encoded, collate
from unlearn_lightning.inference.likelihood import token_log_likelihood
from unlearn_lightning.models.flops import Matrices, named_peak, peak_flops

# 2 layers of q, k, v, o (32 x 32 and 32 x 16) and gate, up, down (32 x 64); see conftest.
BODY = 2 * (2 * 32 * 32 + 2 * 32 * 16 + 3 * 32 * 64)
HEAD = 32 * 320


def test_weights_by_hand(make_backbone, lora):
    assert Matrices.of(make_backbone().load_for_fine_tuning()) == Matrices(0, BODY, HEAD, True, 0)
    # rank 4 at each layer: 4 x (inputs + outputs)
    adapter = 2 * 4 * (2 * 64 + 2 * 48 + 3 * 96)
    matrices = Matrices.of(make_backbone(lora=lora).load_for_fine_tuning())
    assert matrices == Matrices(BODY, adapter, HEAD, False, adapter)
    assert matrices.training_flops(10, 3) == (4 * BODY + 6 * adapter) * 10 + 4 * HEAD * 3
    assert matrices.training_flops(10, 3, reference=True) - matrices.training_flops(10, 3) == 2 * BODY * 10 + 2 * HEAD * 3


def test_flops_are_those_that_pytorch_counts_but_for_attention_and_shortcuts(make_backbone):
    net = make_backbone(shortcuts=False).load_for_fine_tuning()
    batch = collate([Encoded("a", [6] * 20, [7] * 10)] * 4, pad_id=0)
    with FlopCounterMode(display=False) as counter:
        token_log_likelihood(net, batch.input_ids, batch.attention_mask, batch.response_mask).sum().backward()
    counts = {str(op): n for op, n in counter.get_flop_counts()["Global"].items() if "mm" in str(op)}
    assert sum(counts.values()) == pytest.approx(Matrices.of(net).training_flops(batch.tokens, batch.response_tokens), rel=0.01)


def test_a_run_logs_speed_and_memory_and_is_the_same_run(corpus, questions, tmp_path):
    listed = {"callbacks": [{"class_path": "Throughput", "init_args": {"every_n_steps": 2, "peak_flops": 1e12}}]}
    fit(settings(corpus, questions, tmp_path / "run", trainer=listed, data={"init_args": {"micro_batch_size": 4}}))
    fit(settings(corpus, questions, tmp_path / "plain"))
    assert run_json(tmp_path / "run")["key"] == run_json(tmp_path / "plain")["key"]
    with (tmp_path / "run" / "metrics.csv").open() as file:
        rows = [row for row in csv.DictReader(file) if row["speed/tokens_per_second"]]
    assert [row["step"] for row in rows] == ["2", "4"]
    for row in rows:
        assert float(row["speed/tokens_per_second"]) > 0
        assert 1 <= float(row["speed/padded_per_token"]) < 2
        assert 0 < float(row["speed/share_of_peak"]) < 1
        assert float(row["speed/peak_memory_bytes"]) > 1e8


def test_without_a_known_peak_no_share_is_made_up(corpus, questions, tmp_path):
    fit(
        settings(
            corpus, questions, tmp_path / "run", trainer={"callbacks": [{"class_path": "Throughput", "init_args": {"every_n_steps": 1}}]}
        )
    )
    header = (tmp_path / "run" / "metrics.csv").read_text().splitlines()[0]
    assert "speed/tokens_per_second" in header
    assert "share_of_peak" not in header
    with pytest.raises(ValueError, match="at least 1"):
        Throughput(every_n_steps=0)


def test_rows_that_only_fill_a_device_count_for_no_tokens(make_backbone):
    batch = collate([Encoded("a", [6, 7], [8]), Encoded("b", [6], [7, 8])], pad_id=0)
    assert (batch.tokens, batch.response_tokens) == (6, 3)
    assert batch.to("cpu").tokens == 6
    assert torch.equal(batch.real, torch.tensor([True, True]))


def test_peaks_are_those_of_the_data_sheets_by_the_names_that_gpus_give_themselves():
    """Half of the sums printed "with sparsity"; Lightning's table has none for an H200, and an L4's for an L40S."""
    half = {
        "NVIDIA H100 80GB HBM3": 989.4, "NVIDIA H100 PCIe": 756, "NVIDIA H100 NVL": 835.5, "NVIDIA H200": 989.4,
        "NVIDIA L40S": 362.1, "NVIDIA L4": 121, "NVIDIA A100-SXM4-80GB": 312, "NVIDIA RTX A6000": 154.8,
        "NVIDIA H100 80GB HBM3 MIG 1g.10gb": None, "NVIDIA T4": None,
    }  # fmt: skip
    found = {name: named_peak(name, torch.bfloat16) for name in half}
    assert {name: peak and round(peak / 1e12, 1) for name, peak in found.items()} == half
    assert named_peak("NVIDIA H100 80GB HBM3", torch.float32) == pytest.approx(66.9e12)
    assert peak_flops(torch.device("cpu"), torch.float32) is None
