"""Distances, schedules and files: everything that needs no model."""

import json
import os

import pytest
import torch

from unlearn_lightning.inference.divergence import squared_distance
from unlearn_lightning.records import last_record, read_json, read_records, record_path, write_json, write_text
from unlearn_lightning.schedule import Cosine, WarmupStableDecay


def test_squared_distance_by_hand():
    one, other = {"a": [-1.0, -2.0], "b": [0.0]}, {"a": [-2.0, -4.0], "b": [-3.0]}
    assert squared_distance(one, other) == (1 + 4 + 9) / 2
    assert squared_distance(one, one) == 0


def test_predictions_of_other_examples_or_tokens_are_refused():
    with pytest.raises(ValueError, match="only one side has"):
        squared_distance({"a": [0.0]}, {"b": [0.0]})
    with pytest.raises(ValueError, match="different tokenizers"):
        squared_distance({"a": [0.0]}, {"a": [0.0, 0.0]})
    with pytest.raises(ValueError, match="no probe examples"):
        squared_distance({}, {})


def rates(schedule, steps, **settings):
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=2.0)
    scheduler = schedule(optimizer, steps, **settings)
    found = []
    for _ in range(steps):
        found.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    return found


def test_warmup_stable_decay_by_hand():
    assert rates(WarmupStableDecay, 8, warmup=0.5, decay=0.25) == pytest.approx([0.5, 1.0, 1.5, 2.0, 2.0, 2.0, 2.0, 1.0])
    # 2% of 16 steps is less than one step: one warm-up step at the full rate, and no step is wasted on rate 0.
    assert rates(WarmupStableDecay, 16) == [2.0] * 16


def test_cosine_by_hand():
    found = rates(Cosine, 4, warmup=0.0)
    assert found == pytest.approx([1 + torch.cos(torch.pi * torch.tensor(t / 5)).item() for t in (1, 2, 3, 4)], abs=1e-6)
    assert min(rates(Cosine, 50)) > 0


@pytest.mark.parametrize("settings", [{"warmup": 1.5}, {"decay": -0.1}, {"warmup": 0.8, "decay": 0.8}])
def test_impossible_schedules_are_refused(settings):
    with pytest.raises(ValueError, match=r"share of all steps|exceed"):
        rates(WarmupStableDecay, 10, **settings)


def test_files_are_written_whole_or_not_at_all(tmp_path, monkeypatch):
    path = tmp_path / "a.json"
    write_json(path, {"x": 1})
    monkeypatch.setattr(os, "replace", lambda *_: (_ for _ in ()).throw(OSError("disk full")))
    with pytest.raises(OSError, match="disk full"):
        write_text(path, "half")
    monkeypatch.undo()
    assert read_json(path)["x"] == 1
    assert [p.name for p in tmp_path.iterdir()] == ["a.json"]


def test_unknown_formats_are_refused(tmp_path):
    path = tmp_path / "run.json"
    path.write_text(json.dumps({"format": 99}))
    with pytest.raises(ValueError, match="format 99"):
        read_json(path)
    path.write_text("{")
    with pytest.raises(ValueError, match="not JSON"):
        read_json(path)


def test_records_by_step(tmp_path):
    for step in (10, 1_000_000, 0, 999_999):
        write_json(record_path(tmp_path, "forget", step), {"step": step})
    assert list(read_records(tmp_path, "forget")) == [0, 10, 999_999, 1_000_000]
    assert last_record(tmp_path, "forget")["step"] == 1_000_000
    assert read_records(tmp_path, "nothing") == {}
