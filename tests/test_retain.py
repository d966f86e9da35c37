"""The retain term: by hand, against fine-tuning's own step, on any number of micro-batches, resumed, and in run keys."""

import json
import math

import pytest
import torch
from study_runs import fit, logged_steps, run_json, settings, weights
from test_study import config_of, small

from unlearn_lightning.cli.resolver import Resolver
from unlearn_lightning.data import Batch, ChatStage, Encoded, EpochPlan
from unlearn_lightning.modules import RetainTerm
from unlearn_lightning.modules.retain import RetainBatches, check_apart, tell_measured_and_retained, token_kl
from unlearn_lightning.objectives.gradient_ascent import GradientAscent
from unlearn_lightning.study.study_config import merged
from unlearn_lightning.study.tree import plan

SGD = {"class_path": "torch.optim.SGD", "init_args": {"lr": 0.1}}
CONSTANT = {"class_path": "WarmupStableDecay", "init_args": {"warmup": 0.0, "decay": 0.0}}
LORA = {"lora": {"rank": 2, "alpha": 4, "dropout": 0.1}}


@pytest.fixture
def kept(tmp_path):
    """13 further questions, to be retained."""
    path = tmp_path / "kept.jsonl"
    rows = [{"prompt": f"Where is {'far ' * (i % 3)}{i}?", "response": f"Behind{' the' * (i % 4)} {i + 1}."} for i in range(13)]
    path.write_text("\n".join(map(json.dumps, rows)))
    return str(path)


def retain(kept, batch_size=6, **more):
    data = {"source": kept, "held_out_source": kept, "batch_size": batch_size, "bucket_batches": 1}
    return {"model": {"init_args": {"retain": {"data": {"class_path": "ChatStage", "init_args": data}, **more}}}}


def test_kl_by_hand():
    half, quarters = torch.zeros(2), torch.tensor([math.log(3.0), 0.0])
    torch.testing.assert_close(token_kl(half, quarters), torch.tensor(0.5 * math.log(4 / 3)))
    assert token_kl(quarters, quarters + 7).item() == pytest.approx(0, abs=1e-6)


def test_one_step_is_the_forget_step_and_the_weighted_retain_step(corpus, questions, kept, tmp_path):
    """With plain gradient descent the updates of gradient ascent and of fine-tuning on the retain set add up."""
    once = {"trainer": {"max_steps": 1, "gradient_clip_val": None}, "model": {"init_args": {"optimizer": SGD, "lr_scheduler": CONSTANT}}}

    def updated(name, cls, *more):
        fit(settings(corpus, questions, tmp_path / name, cls, **merged(once, *more)))
        return weights(tmp_path / name)

    still = updated("still", "GradientAscent", {"model": {"init_args": {"optimizer": {"init_args": {"lr": 0.0}}}}})
    forgot = updated("forgot", "GradientAscent")
    both = updated("both", "GradientAscent", retain(kept, batch_size=13, weight=0.5))
    learned = updated("learned", "StageFineTuning", {"data": {"init_args": {"source": kept, "batch_size": 13, "micro_batch_size": None}}})
    assert max((learned[k] - still[k]).abs().max() for k in still) > 1e-3
    for key in still:
        torch.testing.assert_close(
            both[key] - still[key], forgot[key] - still[key] + 0.5 * (learned[key] - still[key]), atol=1e-6, rtol=1e-4
        )
    # Each by itself is what ascent and fine-tuning alone call their loss; plain gradient descent moves by rate times gradient norm.
    (told,), (alone,), (kept_alone,) = (logged_steps(tmp_path / name).values() for name in ("both", "forgot", "learned"))
    assert told["train/forget_loss"] == pytest.approx(alone["train/loss"], abs=1e-5)
    assert told["train/retain_loss"] == pytest.approx(kept_alone["train/loss"], abs=1e-5)
    assert told["train/loss"] == pytest.approx(alone["train/loss"] + 0.5 * kept_alone["train/loss"], abs=1e-5)
    moved = torch.cat([(both[key] - still[key]).flatten() for key in still]).norm().item()
    assert told["train/grad_norm"] == pytest.approx(moved / 0.1, rel=1e-4)
    assert (alone["train/forget_loss"], "train/retain_loss" in alone) == (alone["train/loss"], False)
    assert run_json(tmp_path / "both")["local"] is False
    assert run_json(tmp_path / "forgot")["local"] is True


def test_every_retain_example_of_a_step_is_in_one_share():
    encoded = [Encoded(str(i), [1] * (1 + i % 3), [2] * (1 + i % 5)) for i in range(13)]
    term = RetainBatches(encoded, ChatStage(batch_size=6, bucket_batches=1, seed=5), pad_id=0)
    passes = [[term.of_step(step) for step in range(start, start + 3)] for start in (0, 3)]
    for batches in passes:
        assert sorted(i for batch in batches for i in batch) == list(range(13))
    assert passes[0] != passes[1]
    for micro, world in ((8, 1), (2, 1), (2, 2), (1, 8)):
        forget = EpochPlan((5,) * 19, 8, micro, world, 1)
        shares: dict[int, list[Batch]] = {}
        for rank in range(world):
            for part in forget.micro_batches(seed=1, epoch=2, rank=rank):
                batch = Batch(*[torch.empty(0)] * 5, 0, len(part.batch), epoch=part.epoch, position=part.position)
                shares.setdefault(part.position // forget.accumulation, []).append(term.beside(batch, forget, rank))
        # An epoch of 19 examples has two full batches and one of 3; epoch 2 begins with step 6.
        assert len(shares) == 3
        for number, found in shares.items():
            expected = [encoded[i] for i in term.of_step(6 + number)]
            assert sum(int(share.real.sum()) for share in found) == len(expected)
            assert sum(int(share.response_mask[share.real].sum()) for share in found) == sum(len(e.response_ids) for e in expected)
            assert {share.batch_tokens for share in found} == {sum(len(e.response_ids) for e in expected)}


@pytest.mark.parametrize("loss", ["cross_entropy", "kl"])
def test_micro_batches_give_the_same_weights(loss, corpus, questions, kept, tmp_path, monkeypatch):
    plain = GradientAscent.forget_loss

    def telling(self, batch):
        self.log_step_value("train/response_tokens", batch.response_mask.sum(-1).float(), batch)
        return plain(self, batch)

    monkeypatch.setattr(GradientAscent, "forget_loss", telling)
    lora = {"model": {"init_args": {"backbone": {"lora": {"rank": 2, "alpha": 4}}}}} if loss == "kl" else {}
    more = merged(retain(kept, loss=loss, weight=2.5), lora)

    # test_processes.py has two processes.
    def run(micro):
        changed = merged(more, {"data": {"init_args": {"micro_batch_size": micro}}})
        fit(settings(corpus, questions, tmp_path / f"micro{micro}", "GradientAscent", **changed))
        return weights(tmp_path / f"micro{micro}")

    whole, other = run(8), run(1)
    for key, value in whole.items():
        torch.testing.assert_close(other[key], value, atol=1e-5, rtol=0)
    told, again = logged_steps(tmp_path / "micro8"), logged_steps(tmp_path / "micro1")
    for step, row in told.items():
        assert again[step] == pytest.approx(row, abs=1e-4)
        assert row["train/loss"] == pytest.approx(row["train/forget_loss"] + 2.5 * row["train/retain_loss"], abs=1e-5)
    assert loss == "kl" or max(row["train/grad_norm"] for row in told.values()) > 1.5, "before it is clipped to 1"
    # An objective's own number is a mean over examples: two epochs of 19, in steps of 8, 8 and 3 but for the last.
    lengths = {8.0 * told[step]["train/response_tokens"] for step in told if step % 3 != 2} | {3.0 * told[2]["train/response_tokens"]}
    assert all(length == pytest.approx(round(length), abs=1e-4) and length > 0 for length in lengths)
    assert len(told) == 5


@pytest.mark.parametrize("loss", ["cross_entropy", "kl"])
def test_a_stopped_run_goes_on_with_the_same_retain_batches(loss, corpus, questions, kept, tmp_path, monkeypatch):
    plain = GradientAscent.forget_loss

    def spoiled(self, batch):
        return plain(self, batch) * (float("nan") if self.trainer.global_step == 3 else 1.0)

    more = merged(retain(kept, loss=loss), {"model": {"init_args": {"backbone": LORA}}, "data": {"init_args": {"micro_batch_size": 4}}})
    config = settings(corpus, questions, tmp_path / "stopped", "GradientAscent", checkpoint_every_n_steps=1, **more)
    monkeypatch.setattr(GradientAscent, "forget_loss", spoiled)
    with pytest.raises(FloatingPointError):
        fit(config)
    monkeypatch.undo()
    fit(config)
    fit({**config, "run_folder": str(tmp_path / "straight")})
    for key, value in weights(tmp_path / "straight").items():
        assert torch.equal(weights(tmp_path / "stopped")[key], value)


def test_meaningless_terms_are_refused(make_backbone, kept):
    data = ChatStage(source=kept)
    with pytest.raises(ValueError, match=r"retain\.weight must be above 0"):
        RetainTerm(data, weight=0.0)
    with pytest.raises(ValueError, match=r"retain\.loss kl compares whole distributions"):
        GradientAscent(make_backbone(), retain=RetainTerm(data, "kl"))
    assert GradientAscent(make_backbone()).local
    assert not GradientAscent(make_backbone(), retain=RetainTerm(data)).local


def test_the_key_covers_the_term_and_its_data(corpus, questions, tmp_path):
    resolve = Resolver().resolve

    def planned(**term):
        more = {"objectives": {"npo": {"retain": {"stage": "inst", **term}}}} if term else {}
        study = small(corpus, questions, positions=[1], retrained=False, **more)
        return {run.name: run for run in plan(config_of(study), tmp_path, resolve)}

    without, found = planned(), planned(weight=1.0)
    name = "seed0/p1/npo"
    assert {other for other in found if found[other].key != without[other].key} == {name}
    assert len({runs[name].key for runs in (without, found, planned(weight=2.0), planned(stage="math"))}) == 4
    term = found[name].config["model"]["init_args"]["retain"]
    assert term["data"]["init_args"]["prompt_template"] == "inst: {prompt}"
    assert (term["loss"], term["weight"], term["data"]["init_args"]["seed"]) == ("cross_entropy", 1.0, 0)


@pytest.mark.parametrize(
    ("term", "message"), [({"stage": "isnt"}, "names the stage 'isnt'"), ({"weight": 1.0}, "names the stage that is kept")]
)
def test_a_study_names_the_retained_stage(term, message, corpus, questions):
    with pytest.raises(ValueError, match=message):
        config_of(small(corpus, questions, objectives={"npo": {"retain": term}}))


def test_what_is_unlearned_may_not_be_retained(corpus, questions, tmp_path):
    """The same file twice is refused before a step."""
    with pytest.raises(ValueError, match=r"examples that are unlearned are retained, too, so that a step would forget and keep the same"):
        fit(settings(corpus, questions, tmp_path / "run", "GradientAscent", **retain(questions)))
    assert not (tmp_path / "run" / "metrics.csv").exists()


def test_held_out_prompts_that_are_retained_are_counted(questions, kept, caplog):
    caplog.set_level("INFO")
    forget = ChatStage(source=questions, held_out_source=kept, held_out_examples=5)
    tell_measured_and_retained(forget, ChatStage(source=kept, held_out_examples=0))
    tell_measured_and_retained(forget, ChatStage(source=questions, held_out_examples=0))
    tell_measured_and_retained(ChatStage(source=questions, held_out_source="missing.jsonl"), forget)
    assert caplog.messages == ["5 of 5 held-out prompts are retained, so that what is measured on them is not of new prompts."]


def test_what_is_unlearned_and_retained_is_counted(caplog):
    """Of five unlearned examples two are one that is retained; a prompt is retained with another response; plain texts have no prompt."""
    forget = [Encoded("a", [1], [2]), Encoded("b", [1], [2]), Encoded("c", [3], [4]), Encoded("d", [5], [6]), Encoded("e", [], [7])]
    caplog.set_level("INFO")
    check_apart(forget, [Encoded("f", [1], [2]), Encoded("g", [3], [9]), Encoded("h", [3], [8]), Encoded("i", [], [8])])
    assert caplog.messages == [
        "2 of the 5 examples that are unlearned are retained, too.",
        "1 prompts are unlearned with one response and retained with another.",
    ]
    check_apart(forget, [Encoded("f", [0], [2])])
    assert len(caplog.messages) == 2
    with pytest.raises(ValueError, match=r"^3 of the 5 examples that are unlearned are retained, too, so that"):
        check_apart(forget, [Encoded("f", [1], [2]), Encoded("g", [], [7])])
