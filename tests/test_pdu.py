"""PDU: its loss and its multiplier by hand, in a run, and behind a checkpoint."""

import math

import pytest
import torch
from study_runs import fit, logged_steps, run_json, settings, weights
from test_retain import kept, retain  # noqa: F401

from unlearn_lightning.data import ChatStage
from unlearn_lightning.modules import RetainTerm
from unlearn_lightning.objectives.pdu import PDU, logit_margin_flattening, next_multiplier
from unlearn_lightning.study.study_config import merged

TERM = RetainTerm(ChatStage(source="unread"))


def test_flattening_by_hand():
    # The largest is 4 and the mean 2, then 4 - 4.
    assert logit_margin_flattening(torch.tensor([[4.0, 2.0, 0.0], [4.0, 4.0, 4.0]])).tolist() == [4.0, 0.0]
    logits = torch.tensor([[5.0, 1.0]])
    assert torch.equal(logit_margin_flattening(logits), logit_margin_flattening(logits + 7)), "a common shift changes no prediction"
    assert logit_margin_flattening(torch.tensor([[1e4, 0.0]])).isfinite().all()


@pytest.mark.parametrize(
    ("multiplier", "loss", "expected"), [(1.0, 0.5, 1.4), (1.0, 0.3, 1.0), (1.0, 0.1, 0.6), (0.1, 0.0, 0.0), (0.0, 0.4, 0.2)]
)
def test_the_multiplier_by_hand(multiplier, loss, expected):
    assert next_multiplier(multiplier, loss, bound=0.3, step=2.0) == pytest.approx(expected)


@pytest.mark.parametrize("name", ["epsilon", "multiplier", "dual_step", "warmup_epochs"])
@pytest.mark.parametrize("value", [-1.0, math.inf, math.nan])
def test_meaningless_settings_are_refused(name, value, make_backbone):
    with pytest.raises(ValueError, match=f"PDU needs {name} of at least 0, got"):
        PDU(make_backbone(), retain=TERM, **{"epsilon": 1.0, name: value})


@pytest.mark.parametrize(
    ("term", "said"),
    [(None, r"name the data that is retained"), (RetainTerm(TERM.data, weight=2.0), r"leave retain\.weight at 1, got 2\.0")],
)
def test_a_retain_term_without_a_weight_of_its_own_is_asked_for(term, said, make_backbone):
    with pytest.raises(ValueError, match=said):
        PDU(make_backbone(), retain=term, epsilon=1.0)


@pytest.mark.parametrize(("lora", "warmup"), [(None, 0.0), ({"rank": 2, "alpha": 4}, 1.0)])
def test_every_step_takes_the_whole_batchs_retain_loss_whatever_the_micro_batches(lora, warmup, corpus, questions, kept, tmp_path):  # noqa: F811
    own = {"epsilon": 5.0, "multiplier": 3.0, "dual_step": 2.0, "warmup_epochs": warmup, "backbone": {"lora": lora}}
    more = merged(retain(kept, batch_size=4), {"model": {"init_args": own}})

    def run(micro):
        changed = merged(more, {"data": {"init_args": {"micro_batch_size": micro}}})
        return fit(settings(corpus, questions, tmp_path / f"micro{micro}", "PDU", **changed)).model

    module, other = run(8), run(1)
    told = list(logged_steps(tmp_path / "micro8").values())
    multiplier = 3.0
    for step, row in enumerate(told):
        assert row["train/multiplier"] == pytest.approx(multiplier, abs=1e-5)
        assert row["train/loss"] == pytest.approx(row["train/forget_loss"] + multiplier * row["train/retain_loss"], rel=1e-5)
        # An epoch has three steps.
        if step >= 3 * warmup:
            multiplier = max(0.0, multiplier + 2.0 * (row["train/retain_loss"] - 5.0))
    assert multiplier != 3.0
    assert (module.multiplier, other.multiplier) == (pytest.approx(multiplier, abs=1e-4), pytest.approx(multiplier, abs=1e-4))
    whole, parts = weights(tmp_path / "micro8"), weights(tmp_path / "micro1")
    for key, value in whole.items():
        torch.testing.assert_close(parts[key], value, atol=1e-5, rtol=0)
    assert run_json(tmp_path / "micro8")["local"] is False


def test_the_multiplier_is_kept_in_a_checkpoint(make_backbone):
    module, again = (PDU(make_backbone(), retain=TERM, epsilon=1.0, multiplier=value) for value in (7.25, 1.0))
    checkpoint = {"state_dict": {}}
    for one in (module, again):
        one.configure_model()
    module.on_save_checkpoint(checkpoint)
    checkpoint["state_dict"] = dict.fromkeys(module.trainable_names())
    again.on_load_checkpoint(checkpoint)
    assert again.multiplier == 7.25
