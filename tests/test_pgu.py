"""Projected-gradient unlearning: loss and subspaces by hand, and what a run's updates leave alone."""

import math

import pytest
import torch
from study_runs import fit, logged_steps, run_json, settings, weights
from test_retain import kept, retain  # noqa: F401

from unlearn_lightning.data import ChatStage, Encoded, collate
from unlearn_lightning.models.backbone import Lora
from unlearn_lightning.modules import RetainTerm, subspaces
from unlearn_lightning.modules.subspaces import InputMoments, input_places, leading_directions
from unlearn_lightning.objectives.pgu import PGU, pgu_loss
from unlearn_lightning.study.study_config import merged

EXAMPLES = [Encoded("a", [6, 7, 8], [9, 10]), Encoded("b", [7, 9], [11, 12, 13, 5])]
ADAPTER = {"rank": 2, "alpha": 4}


def test_the_loss_by_hand():
    # p = (.5, .3, .2), the first is forgotten.
    logits = torch.tensor([[0.5, 0.3, 0.2]]).log()
    entropy = -(0.5 * math.log(0.5) + 0.3 * math.log(0.3) + 0.2 * math.log(0.2))
    loss = pgu_loss(logits, torch.tensor([0]), offset=0.05, entropy_weight=0.2)
    assert loss.item() == pytest.approx(-math.log(1 - 0.45) - 0.2 * entropy, abs=1e-6)


@pytest.mark.parametrize(("height", "expected"), [(200.0, -math.log(0.05)), (-200.0, -math.log(1.05) - 0.2 * math.log(2))])
def test_the_loss_is_finite_where_the_token_is_certain_or_impossible(height, expected):
    logits = torch.tensor([[height, 0.0, 0.0]], requires_grad=True)
    loss = pgu_loss(logits, torch.tensor([0]), offset=0.05, entropy_weight=0.2)
    loss.backward()
    assert loss.item() == pytest.approx(expected, abs=1e-5)
    assert logits.grad.isfinite().all()


@pytest.mark.parametrize(("share", "count"), [(0.0, 0), (0.5, 0), (0.58, 1), (0.9, 2), (1.0, 3)])
def test_directions_by_hand(share, count):
    # Singular values 4, 2 and 1: 4/7, 6/7 and all of their sum, and not of their squares' sum, 21.
    found = leading_directions(torch.diag(torch.tensor([1.0, 16.0, 4.0], dtype=torch.float64)), share)
    assert found.shape == (3, count)
    assert [column.abs().argmax().item() for column in found.T] == [1, 2, 0][:count]


def built(backbone, **values):
    term = RetainTerm(ChatStage(source="unread"), "subspace")
    module = PGU(backbone, **{"retain": term, **values})
    module.configure_model()
    return module


@pytest.mark.parametrize("lora", [None, Lora(rank=2)])
def test_moments_are_the_plain_sums_over_real_tokens(lora, make_backbone):
    net = built(make_backbone(lora=lora)).net.eval()
    places = input_places(net)
    assert len(places) == 2 * 7
    plain = dict.fromkeys(places.values(), 0.0)

    def add(name):
        def hook(_, given):
            rows = given[0][0].double()
            plain[name] = plain[name] + rows.T @ rows

        return hook

    handles = [net.get_submodule(name).register_forward_pre_hook(add(name)) for name in plain]
    with torch.no_grad():
        for example in EXAMPLES:
            net(input_ids=collate([example], 0).input_ids)
        for handle in handles:
            handle.remove()
        moments, batch = InputMoments(net, places), collate(EXAMPLES, 0)
        with moments.counting(batch.attention_mask.bool()):
            net(input_ids=batch.input_ids, attention_mask=batch.attention_mask)
    # Queries, keys and values share an input, and so do gate and up: four of seven are kept.
    assert len(moments.moments) == 2 * 4
    for name, expected in plain.items():
        torch.testing.assert_close(moments.moments[moments.shared[name]], expected, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("lora", [None, ADAPTER])
def test_updates_leave_the_retain_inputs_alone_whatever_the_micro_batches(lora, corpus, questions, kept, tmp_path):  # noqa: F811
    own = {"share": 0.9, "backbone": {"lora": lora}}
    more = merged(retain(kept, loss="subspace"), {"model": {"init_args": own}})

    def run(micro):
        changed = merged(more, {"data": {"init_args": {"micro_batch_size": micro}}})
        return fit(settings(corpus, questions, tmp_path / f"micro{micro}", "PGU", **changed)).model

    module, _ = run(8), run(1)
    start, found = module.backbone.load_for_unlearning(), module._subspaces
    moved = 0
    for name, basis in found.bases_on(module.net):
        before, after = start.get_parameter(name), module.net.get_parameter(name)
        assert 0 < basis.shape[1] < basis.shape[0]
        torch.testing.assert_close(basis.T @ basis, torch.eye(basis.shape[1]), atol=1e-5, rtol=0)
        # Of an adapter the product of its matrices is what must say nothing of the subspace: its first one says nothing from the start.
        within = after @ basis - (0 if lora else before @ basis)
        assert within.abs().max() < 1e-5
        moved += (after - before).abs().max() > 1e-3
    assert moved == len(found.basis_of) == 14
    projected = {*found.basis_of, *(name.replace("lora_A", "lora_B") for name in found.basis_of)}
    for name, value in start.named_parameters():
        assert name in projected or torch.equal(module.net.get_parameter(name), value), f"{name} is not frozen"
    whole, other = weights(tmp_path / "micro8"), weights(tmp_path / "micro1")
    for key, value in whole.items():
        torch.testing.assert_close(other[key], value, atol=2e-5, rtol=0)
    told = logged_steps(tmp_path / "micro8")
    assert told[4]["train/loss"] < told[0]["train/loss"]
    assert told[0]["train/loss"] == told[0]["train/forget_loss"], "no retain loss is added"
    assert run_json(tmp_path / "micro8")["local"] is False


def test_another_retain_loss_is_added(corpus, questions, kept, tmp_path):  # noqa: F811
    own = {"trainer": {"max_steps": 1}, "model": {"init_args": {"share": 0.0}}}
    module = fit(settings(corpus, questions, tmp_path / "run", "PGU", **merged(retain(kept, weight=2.0), own))).model
    (row,) = logged_steps(tmp_path / "run").values()
    assert row["train/loss"] == pytest.approx(row["train/forget_loss"] + 2.0 * row["train/retain_loss"], rel=1e-5)
    assert {basis.shape[1] for basis in module._subspaces.bases.values()} == {0}, "share 0 projects nothing"


def test_moments_that_would_not_fit_are_refused_before_work_starts(corpus, questions, kept, tmp_path, monkeypatch):  # noqa: F811
    monkeypatch.setattr(subspaces, "LIMIT", 1000)
    with pytest.raises(ValueError, match=r"inputs of 14 linear layers: up to 64 numbers wide, .* 0 GiB at most are taken\. Train fewer"):
        fit(settings(corpus, questions, tmp_path / "run", "PGU", **retain(kept, loss="subspace")))


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"retain": None}, r"by the inputs of a retain set: name it in model\.retain\.data"),
        ({"retain": RetainTerm(ChatStage(source="unread"), "subspace", 2.0)}, "adds no loss that a weight could count"),
        ({"share": 1.0}, "share of at least 0 and below 1"), ({"share": -0.1}, "share"), ({"offset": 0.0}, "offset above 0"),
        ({"entropy_weight": math.nan}, "entropy_weight of at least 0"),
    ],
)  # fmt: skip
def test_meaningless_settings_are_refused(values, said, make_backbone):
    with pytest.raises(ValueError, match=said):
        built(make_backbone(), **values)
