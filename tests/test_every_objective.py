"""What holds for every objective: a retain term beside those that are local, and the same weights behind kill -9, and 4-bit models."""

from types import SimpleNamespace

import pytest
import torch
from peft import PeftModel
from study_runs import fit, metrics_text, run_json, settings, weights
from test_backbone import log_lik, trained_adapter
from test_killed_runs import in_a_checkpoints_write, killed
from test_more_objectives import EVERY, built, pairs  # noqa: F401
from test_quantization import base  # noqa: F401
from test_retain import kept, retain  # noqa: F401

from unlearn_lightning.data import ChatStage, Encoded, EpochPlan, collate
from unlearn_lightning.data.batching import BatchSource
from unlearn_lightning.main import main
from unlearn_lightning.models.backbone import Backbone, Lora
from unlearn_lightning.modules import RetainTerm
from unlearn_lightning.modules.retain import RetainBatches
from unlearn_lightning.objectives.npo import NPO
from unlearn_lightning.objectives.simnpo import SimNPO
from unlearn_lightning.objectives.task_vector import TaskVector
from unlearn_lightning.study.estimate import Estimator
from unlearn_lightning.study.study_config import merged

RETAINED = [Encoded(str(i), [6, 8], [20 + i, 21, 5][i % 2 :]) for i in range(4)]
# PDU and PGU are nothing without one, and have files of their own; a task vector's is refused there.
LOCAL = [one for one in EVERY if one[0] is not TaskVector] + [(NPO, {}), (SimNPO, {})]


@pytest.mark.parametrize("loss", ["cross_entropy", "kl"])
@pytest.mark.parametrize(("cls", "values"), LOCAL, ids=lambda one: getattr(one, "__name__", ""))
def test_a_retain_term_adds_its_gradients_to_those_of_a_local_objective(cls, values, loss, make_backbone, lora, pairs, monkeypatch):  # noqa: F811
    plan, data = EpochPlan(tuple(map(len, pairs)), 8, 8, 1), ChatStage(source="unread", batch_size=4)
    trainer = SimpleNamespace(datamodule=SimpleNamespace(seed=1, plan=lambda _: plan))
    monkeypatch.setattr(cls, "trainer", trainer, raising=False)
    monkeypatch.setattr(cls, "global_rank", 0, raising=False)
    batch = BatchSource(pairs, 0)[plan.micro_batches(1, 0, 0)[0]]

    def step(term):
        module = built(cls, make_backbone(lora=lora), retain=term, **values).eval()
        with torch.no_grad():
            for name, p in module.net.named_parameters():
                if p.requires_grad and "lora_B" in name:
                    p.fill_(0.03)
        module._retain_batches = RetainBatches(RETAINED, data, 0)
        share = module.share_of_loss(batch)
        share.backward()
        return module, share.item(), {name: p.grad for name, p in module.named_parameters() if p.grad is not None}

    alone, forget, found = step(None)
    both, total, added = step(RetainTerm(data, loss, weight=0.5))
    assert (alone.local, both.local) == (True, False)
    both.zero_grad()
    # All four are in the one step: a sum over response tokens, over these.
    whole = both.retain_loss(collate(RETAINED, 0)).sum() / sum(len(one.response_ids) for one in RETAINED)
    whole.backward()
    assert whole.item() > 1e-6
    assert total == pytest.approx(forget + 0.5 * whole.item(), rel=1e-4, abs=1e-6)
    for name, p in both.named_parameters():
        if p.grad is not None:
            torch.testing.assert_close(added[name], found[name] + 0.5 * p.grad, atol=1e-6, rtol=1e-3)


@pytest.mark.parametrize(
    ("loss", "adapter", "trained", "read"),
    [
        ("cross_entropy", None, 150, 0), ("kl", {}, 150, 150), ("activations", {}, 150, 150), ("activations", None, 150, 100),
        ("subspace", None, 0, 100),
    ],
)  # fmt: skip
def test_a_plan_counts_what_a_retain_loss_passes_through_the_net(loss, adapter, trained, read, monkeypatch):
    """Ten retain examples of ten tokens in batches of five, and three steps."""
    term = {"data": {"class_path": "unlearn_lightning.data.ChatStage", "init_args": {"batch_size": 5}}, "loss": loss}
    estimator = Estimator()
    monkeypatch.setattr(estimator, "count", lambda *_: SimpleNamespace(examples=10, tokens=100))
    monkeypatch.setattr(estimator, "_once", lambda function, *_: function())
    config = {"model": {"init_args": {"retain": term, "backbone": {"lora": adapter}}}}
    assert estimator._retain_tokens(config, {}, 3) == (trained, read)


ADAPTER = {"backbone": {"lora": {"rank": 2, "alpha": 4, "dropout": 0.1}}}
# What a run knows beside its weights: kept activations, the start that is negated, a multiplier, subspaces, a permutation.
RESUMED = {
    "activations that are kept": ("RMU", {"layer": 0, "trained_parameters": ""}, {"loss": "activations"}),
    "weights that are negated": ("TaskVector", {"scale": 0.5}, None),
    "an adapter that is negated": ("TaskVector", {"scale": 0.5, **ADAPTER}, None),
    "a multiplier": ("PDU", {"epsilon": 5.0, "dual_step": 2.0}, {}),
    "subspaces": ("PGU", {}, {"loss": "subspace"}),
    "subspaces of an adapter": ("PGU", ADAPTER, {"loss": "subspace"}),
    "a permutation": ("RandomLabels", {"labels": "permuted"}, None),
    "tokens that are drawn": ("RandomLabels", {"labels": "tokens"}, None),
    "logits that are kept": ("UNDIAL", {}, None),
    "logits of the starting model": ("KLAscent", {}, None),
    "weights of tokens": ("WGA", {}, None),
    "two weights of tokens": ("SatImp", {}, None),
    "an entropy": ("CEU", {}, None),
    "likelihoods that are kept": ("NPO", {"cache_reference": True}, None),
    "likelihoods of two responses": ("AltPO", {"cache_reference": True}, None),
}
# An objective of two responses is given the prompt as the second one.
DATA = {"AltPO": {"alternative_field": "prompt"}}


@pytest.mark.parametrize("case", RESUMED)
def test_a_killed_run_ends_with_the_same_weights_and_numbers(case, corpus, questions, kept, tmp_path):  # noqa: F811
    cls, values, term = RESUMED[case]
    more = merged(
        {"model": {"init_args": values}, "data": {"init_args": DATA.get(cls, {})}},
        {} if term is None else retain(kept, batch_size=4, **term),
    )

    def run(name):
        return settings(corpus, questions, tmp_path / name, cls, checkpoint_every_n_steps=1, **more)

    def work():
        in_a_checkpoints_write()
        fit(run("killed"))

    fit(run("straight"))
    killed(work)
    assert (tmp_path / "killed/checkpoints/last.ckpt").is_file()
    fit(run("killed"))
    for key, value in weights(tmp_path / "straight").items():
        assert torch.equal(weights(tmp_path / "killed")[key], value), key
    assert metrics_text(tmp_path / "killed") == metrics_text(tmp_path / "straight")
    assert run_json(tmp_path / "killed")["tokens"] == run_json(tmp_path / "straight")["tokens"]


STACKED = {
    "RMU": ({"layer": 0, "trained_parameters": ""}, {"loss": "activations"}), "TaskVector": ({"scale": 2.0}, None),
    "PDU": ({"epsilon": 5.0}, {}), "PGU": ({}, {"loss": "subspace"}), "RandomLabels": ({"labels": "permuted"}, None),
}  # fmt: skip


@pytest.mark.parametrize("cls", STACKED)
def test_on_a_4_bit_base_the_new_adapter_lies_on_the_stages_and_the_run_is_exported(cls, base, lora, corpus, questions, kept, tmp_path):  # noqa: F811
    _, adapter = trained_adapter(base, tmp_path / "stage", lora)
    values, term = STACKED[cls]
    config = settings(corpus, questions, tmp_path / "run", cls, **({} if term is None else retain(kept, batch_size=4, **term)))
    config["trainer"]["max_steps"] = 2
    config["model"]["init_args"] |= values
    config["model"]["init_args"]["backbone"] = {
        "model": base, "scratch": None, "quantization": "nf4", "adapter": adapter, "lora": {"rank": 2, "alpha": 8},
    }  # fmt: skip
    module = fit(config).model
    own = Backbone(model=base, lora=Lora(), quantization="nf4", adapter=[adapter, str(tmp_path / "run/adapter")])
    trained = log_lik(own.load_for_unlearning())
    with torch.no_grad(), module.outcome():
        torch.testing.assert_close(log_lik(module.net), trained)
    stage = log_lik(Backbone(model=base, lora=Lora(), quantization="nf4", adapter=adapter).load_for_unlearning())
    assert (trained - stage).abs().max() > 1e-5, "nothing was trained"
    assert main(["export", str(tmp_path / "run"), "--out", str(tmp_path / "one")]) == 0
    quantized = Backbone(model=base, lora=Lora(), quantization="nf4").load_base()
    torch.testing.assert_close(log_lik(PeftModel.from_pretrained(quantized, tmp_path / "one")), trained, atol=1e-5, rtol=0)
