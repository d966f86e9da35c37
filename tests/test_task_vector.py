"""Task-vector negation: by hand, with an adapter and with all weights, what is measured on the way, and what is saved."""

import dataclasses
import math

import pytest
import torch
from study_runs import fit, logged_steps, run_json, settings, weights

from unlearn_lightning.cli.measuring import measure, trained_config
from unlearn_lightning.data import ChatStage, Encoded, collate
from unlearn_lightning.models.backbone import Lora
from unlearn_lightning.modules import RetainTerm
from unlearn_lightning.objectives.task_vector import TaskVector, negated
from unlearn_lightning.records import read_json
from unlearn_lightning.study.study_config import merged

BATCH = collate([Encoded("a", [6, 7, 8], [9, 10]), Encoded("b", [7, 9], [11, 12, 13, 5])], pad_id=0)
ADAPTER = {"rank": 2, "alpha": 4}


def run(corpus, questions, folder, cls="TaskVector", lora=None, **more):
    probe = {"class_path": "ResponseLikelihood", "init_args": {"split": "train", "every_n_steps": 1, "name": "kept"}}
    own = {"model": {"init_args": {"backbone": {"lora": lora}}}, "trainer": {"callbacks": [probe]}}
    return fit(settings(corpus, questions, folder, cls, **merged(own, more))).model


def scaled(scale):
    return {"model": {"init_args": {"scale": scale}}}


def test_by_hand():
    start, trained = torch.tensor([1.0, -2.0]), torch.tensor([1.5, -2.0])
    assert negated(start, trained, 1.0).tolist() == [0.5, -2.0]
    assert negated(start, trained, 4.0).tolist() == [-1.0, -2.0]
    # In float32 also where the weights are not: 256 + 1 is 256 in bfloat16.
    assert negated(torch.tensor([256.0]).bfloat16(), torch.tensor([258.0]).bfloat16(), 0.5).tolist() == [255.0]


@pytest.mark.parametrize("lora", [None, Lora(rank=2)])
def test_inside_of_the_outcome_the_change_has_the_other_sign_and_nothing_is_lost(lora, make_backbone):
    """The network's function of its weights is not linear, so the weights are compared: with an adapter the product of its matrices."""
    module = TaskVector(make_backbone(lora=lora), scale=2.0)
    module.configure_model()
    before = {name: p.detach().clone() for name, p in module.net.named_parameters()}
    with torch.no_grad():
        start = module.response_log_likelihood(BATCH)
        with module.outcome():
            assert torch.equal(module.response_log_likelihood(BATCH), start), "at the start nothing is negated"
        torch.manual_seed(0)
        for name, p in module.net.named_parameters():
            if p.requires_grad and "lora_A" not in name:
                p.add_(0.1 * torch.randn_like(p))
        after = {name: p.detach().clone() for name, p in module.net.named_parameters()}
        with module.outcome():
            for name, p in module.net.named_parameters():
                moved = before[name] - 2.0 * (after[name] - before[name])
                torch.testing.assert_close(p.detach(), moved, atol=1e-6, rtol=0)
        assert all(torch.equal(p, after[name]) for name, p in module.net.named_parameters())
        with pytest.raises(RuntimeError, match="within"), module.outcome():
            raise RuntimeError("within")
        assert all(torch.equal(p, after[name]) for name, p in module.net.named_parameters())


@pytest.mark.parametrize("lora", [None, ADAPTER])
def test_a_run_ends_with_the_negation_of_fine_tuning(lora, corpus, questions, tmp_path):
    """Its steps are fine-tuning's to the last bit, and its result is the start minus what they changed."""
    run(corpus, questions, tmp_path / "more", "StageFineTuning", lora)
    module = run(corpus, questions, tmp_path / "run", "TaskVector", lora, **scaled(0.5))
    more, found = (weights(tmp_path / name) for name in ("more", "run"))
    # A fresh adapter's second matrices begin at zero.
    start = {key: module._start.get(key, torch.zeros_like(value)) for key, value in more.items()}
    assert lora or all(start[key].abs().max() > 0 for key in start)
    assert max((more[key] - start[key]).abs().max() for key in start) > 1e-3
    for key, value in found.items():
        expected = more[key] if "lora_A" in key else negated(start[key], more[key], 0.5)
        torch.testing.assert_close(value, expected, atol=1e-6, rtol=0)
    # What is measured on the way is the negated model, while the training loss is fine-tuning's.
    told, tuned = logged_steps(tmp_path / "run"), logged_steps(tmp_path / "more")
    assert [row["train/loss"] for row in told.values()] == [row["train/loss"] for row in tuned.values()]
    key = "kept/log_lik"
    course = [read_json(tmp_path / "run" / "records/kept" / f"{step:06d}.json")["metrics"][key] for step in range(6)]
    learned = [read_json(tmp_path / "more" / "records/kept" / f"{step:06d}.json")["metrics"][key] for step in range(6)]
    assert course[0] == learned[0]
    assert course[5] < course[0] < learned[5]
    assert run_json(tmp_path / "run")["local"] is True
    # The saved model is the one that was measured last: as it is loaded by the next run, and when the run is measured again.
    place = {"adapter": str(tmp_path / "run/adapter")} if lora else {"model": str(tmp_path / "run/model"), "scratch": None}
    again = TaskVector(dataclasses.replace(module.backbone, **place))
    again.configure_model()
    with torch.no_grad(), module.outcome():
        torch.testing.assert_close(again.response_log_likelihood(BATCH), module.response_log_likelihood(BATCH), atol=1e-4, rtol=0)
    measure(tmp_path / "run", trained_config(tmp_path / "run"), replace=["kept"])
    assert read_json(tmp_path / "run/records/kept/000005.json")["metrics"][key] == pytest.approx(course[5], abs=1e-5)


@pytest.mark.parametrize("scale", [0.0, -1.0, math.inf, math.nan])
def test_a_meaningless_scale_is_refused(scale, make_backbone):
    with pytest.raises(ValueError, match="TaskVector needs scale above 0, got"):
        TaskVector(make_backbone(), scale=scale)


def test_a_retain_term_is_refused(make_backbone):
    with pytest.raises(ValueError, match="a retain term would be unlearned too: leave `retain` out"):
        TaskVector(make_backbone(), retain=RetainTerm(ChatStage(source="unread")))
