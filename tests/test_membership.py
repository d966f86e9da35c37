"""Membership inference: each score and the AUC by hand, PrivLeak with its refusal, and the probe against plain transformers."""

import json
import math
import zlib

import pytest
import torch
from study_runs import by_two_processes, settings

from callbacks import MembershipInference
from unlearn_lightning.cli import lightning_cli
from unlearn_lightning.cli.measuring import trained_config
from unlearn_lightning.data import ChatStage
from unlearn_lightning.inference import membership
from unlearn_lightning.inference.distribution import standardised
from unlearn_lightning.inference.membership import against_retrained, aucs
from unlearn_lightning.modules import StageFineTuning
from unlearn_lightning.records import read_records
from unlearn_lightning.runs import run_key
from unlearn_lightning.runs.measured import probe_keys


@pytest.mark.parametrize(
    ("values", "k", "expected"),
    [([-0.1, -3.0, -5.0, -0.2, -0.3], 0.4, 4.0), ([-1.0, -2.0], 0.4, 2.0), ([-7.0], 0.01, 7.0), ([-1.0, -2.0, -3.0], 1.0, 2.0)],
)
def test_min_k_by_hand(values, k, expected):
    assert membership.min_k(values, k) == pytest.approx(expected)


def test_standardised_by_hand_and_where_the_prediction_is_certain_or_even():
    # p = (3/4, 1/4): log p has mean m = 3/4 log 3/4 + 1/4 log 1/4, and standard deviation sqrt(3/16) log 3.
    log_lik, above = standardised(torch.tensor([[math.log(3.0), 0.0]]), torch.tensor([0]))
    mean = 3 / 4 * math.log(3 / 4) + 1 / 4 * math.log(1 / 4)
    assert log_lik.item() == pytest.approx(math.log(3 / 4))
    assert above.item() == pytest.approx((math.log(3 / 4) - mean) / (math.sqrt(3 / 16) * math.log(3)), rel=1e-5)
    _, limits = standardised(torch.tensor([[0.0, 0.0], [0.0, -math.inf]]), torch.tensor([1, 0]))
    assert limits.tolist() == pytest.approx([0, 0], abs=1e-3)


def test_zlib_by_hand():
    assert membership.zlib_score(2.0, "aaaa") == 2.0 / len(zlib.compress(b"aaaa"))
    assert membership.zlib_score(2.0, "") == 2.0 / 8, "an empty text has 8 bytes"


@pytest.mark.parametrize(
    ("forget", "holdout", "expected"),
    [
        ([1, 2], [3, 4], 1),
        ([3, 4], [1, 2], 0),
        ([1, 1], [1, 1], 0.5),
        ([0.1, 0.2], [0.9, 0.2], 3.5 / 4),
        ([1], [2], 1),
        ([math.nan], [1], math.nan),
    ],
)
def test_auc_by_hand(forget, holdout, expected):
    assert membership.auc(forget, holdout) == pytest.approx(expected, nan_ok=True)


@pytest.mark.parametrize(
    ("unlearned", "retrained", "percent"), [(0.5, 0.5, 0), (1.0, 0.5, -100), (0.25, 0.5, 50), (0.0, 0.5, 100), (0.6, 0.2, -50)]
)
def test_priv_leak_by_hand(unlearned, retrained, percent):
    assert membership.priv_leak(unlearned, retrained) == pytest.approx(percent)


@pytest.mark.parametrize("retrained", [1.0, 0.99, 0.95, math.nan])
def test_priv_leak_is_refused_where_it_would_explode(retrained):
    with pytest.raises(ValueError, match=r"must be below 0\.95.*holdout set from the forget set's own distribution"):
        membership.priv_leak(0.5, retrained)


def rows(*scores):
    return [{"holdout": holdout, "loss": loss, "min_k": loss} for holdout, loss in scores]


def test_the_retrained_models_auc_stands_beside_and_the_reference_attack_takes_its_loss():
    mine, theirs = rows((False, 1.0), (False, 4.0), (True, 3.0), (True, 5.0)), rows((False, 3.0), (False, 5.0), (True, 4.0), (True, 6.0))
    found, refused = against_retrained(mine, theirs)
    assert aucs(mine)["loss_auc"] == 3 / 4
    assert found["loss_auc_retrained"] == 3 / 4
    # Differences: -2 and -1 on the forget set, -1 and -1 on the holdout set: 2 wins and 2 ties.
    assert found["reference_auc"] == 3 / 4
    assert (found["privleak"], refused) == (0, "")
    found, refused = against_retrained(mine, rows((False, 1.0), (False, 2.0), (True, 3.0), (True, 4.0)))
    assert found["loss_auc_retrained"] == 1
    assert "privleak" not in found
    assert "is 1.000" in refused


def test_scores_are_what_plain_transformers_says(make_backbone, questions, lora):
    module = StageFineTuning(make_backbone(lora=lora))
    module.configure_model()
    module.eval()
    stage = ChatStage(source=questions, held_out_examples=3)
    probe = MembershipInference(stage, split="train", limit=2, k=0.5)
    probe.examples, probe.encoded = stage.measured("train", module.tokenizer, 2)
    probe.check(module)
    assert [one.id for one in probe.examples] == [
        "chat-train-00000", "chat-train-00001", "holdout-chat-held_out-00000", "holdout-chat-held_out-00001",
    ]  # fmt: skip
    with torch.inference_mode():
        found = probe.predict(module, probe.examples, probe.encoded, seed=0)
    for row, example, one in zip(found, probe.examples, probe.encoded, strict=True):
        ids = torch.tensor([[*one.prompt_ids, *one.response_ids]])
        labels = ids.clone()
        labels[:, : len(one.prompt_ids)] = -100
        loss = module.net(input_ids=ids, labels=labels).loss
        loss.backward()
        norms = [p.grad.norm().item() for p in module.parameters() if p.grad is not None]
        module.zero_grad()
        assert row["loss"] == pytest.approx(loss.item(), abs=1e-5)
        assert row["gradnorm"] == pytest.approx(sum(norms) / len(norms), rel=1e-3)
        assert row["zlib"] == pytest.approx(loss.item() / len(zlib.compress(example.response.encode())), rel=1e-4)
        assert row["holdout"] is example.id.startswith("holdout-")
        assert row["min_k"] >= row["loss"]


@pytest.mark.parametrize(
    ("more", "message"),
    [({"holdout_split": "train"}, "both the train part"), ({"holdout": "empty"}, "held_out part of chat is empty")],
)
def test_a_holdout_set_that_is_none_is_refused(make_backbone, questions, more, message):
    module = StageFineTuning(make_backbone())
    module.configure_model()
    stage = ChatStage(source=questions, held_out_examples=0)
    if "holdout" in more:
        more = {"holdout": stage, "holdout_split": "held_out"}
    probe = MembershipInference(stage, split="train", limit=2, **more)
    probe.examples, probe.encoded = stage.measured("train", module.tokenizer, 2)
    with pytest.raises(ValueError, match=message):
        probe.check(module)


def test_each_example_once_on_two_processes_and_the_key_covers_the_holdouts_texts(corpus, questions, tmp_path):
    holdout = tmp_path / "holdout.jsonl"
    holdout.write_text("\n".join(json.dumps({"prompt": f"Who sang song {i}?", "response": f"Zoe {i}."}) for i in range(3)))
    data = {"class_path": "ChatStage", "init_args": {"source": str(holdout)}}
    probe = {"class_path": "MembershipInference", "init_args": {"split": "train", "limit": 4, "chunk_size": 2, "holdout": data}}

    def config(name, **trainer):
        more = {"data": {"init_args": {"micro_batch_size": 4}}, "trainer": {"callbacks": [probe], "logger": False, **trainer}}
        return settings(corpus, questions, tmp_path / name, **more)

    lightning_cli.run({"subcommand": "validate", "validate": config("one")})
    by_two_processes("validate", config("two", devices=2, strategy="ddp"))
    one, two = (read_records(tmp_path / name, "membership")[0] for name in ("one", "two"))
    assert [row["holdout"] for row in one["examples"]] == [False] * 4 + [True] * 3
    assert [row["id"] for row in two["examples"]] == [row["id"] for row in one["examples"]]
    assert two["metrics"] == pytest.approx(one["metrics"])
    assert two["quantities"].keys() == two["metrics"].keys()
    before = probe_keys(trained_config(tmp_path / "one"))
    holdout.write_text(holdout.read_text().replace("Zoe 2", "Zoe 9"))
    run_key._data_content.cache_clear()
    assert probe_keys(trained_config(tmp_path / "one")) != before
