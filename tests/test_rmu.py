"""RMU: its distances by hand, which weights it moves, and where it has the starting model's activations from."""

import dataclasses
import json

import pytest
import torch
from study_runs import fit, logged_steps, run_json, settings, weights

from unlearn_lightning.data import ChatStage, Encoded, collate
from unlearn_lightning.models.backbone import Lora
from unlearn_lightning.modules import RetainTerm
from unlearn_lightning.modules import activations as held
from unlearn_lightning.modules.activations import decoder_layers, layer_output
from unlearn_lightning.objectives.npo import NPO
from unlearn_lightning.objectives.rmu import RMU, activation_distance, steering_vector
from unlearn_lightning.study.study_config import merged

BATCH = collate([Encoded("a", [6, 7, 8], [9, 10]), Encoded("b", [7, 9], [11, 12, 13, 5])], pad_id=0)
ADAPTER = {"rank": 2, "alpha": 4}


@pytest.fixture
def kept(tmp_path):
    """13 further questions, to be retained."""
    path = tmp_path / "kept.jsonl"
    rows = [{"prompt": f"Where is {'far ' * (i % 3)}{i}?", "response": f"Behind{' the' * (i % 4)} {i + 1}."} for i in range(13)]
    path.write_text("\n".join(map(json.dumps, rows)))
    return str(path)


def retained(kept, **more):
    data = {"source": kept, "held_out_source": kept, "batch_size": 4, "bucket_batches": 1}
    term = {"data": {"class_path": "ChatStage", "init_args": data}, "loss": "activations", **more}
    return {"model": {"init_args": {"retain": term, "layer": 0, "trained_parameters": ""}}}


def built(backbone, **values):
    module = RMU(backbone, **values)
    module.configure_model()
    return module


def test_the_distance_by_hand():
    # Over two units: ((1 - 0)^2 + (3 - 1)^2) / 2. A mean and no sum, as in public code.
    assert activation_distance(torch.tensor([[1.0, 3.0]]), torch.tensor([[0.0, 1.0]])).tolist() == [2.5]
    same = torch.randn(3, 4)
    assert activation_distance(same, same).tolist() == [0.0] * 3
    # Also of bfloat16 activations, in float32: 256 + 1 is 256 in bfloat16.
    assert activation_distance(torch.tensor([[256.0]], dtype=torch.bfloat16), torch.tensor([[257.0]])).tolist() == [1.0]


def test_the_direction_has_norm_one_no_negative_part_and_follows_the_seed():
    first = steering_vector(50, 3)
    assert first.norm().item() == pytest.approx(1, abs=1e-6)
    assert (first >= 0).all()
    assert torch.equal(first, steering_vector(50, 3))
    assert not torch.equal(first, steering_vector(50, 4))


@pytest.mark.parametrize("gradient_checkpointing", [False, True])
@pytest.mark.parametrize("lora", [None, Lora(rank=2)])
def test_the_layers_output_is_what_a_hook_sees(lora, gradient_checkpointing, make_backbone):
    net, seen = make_backbone(lora=lora, gradient_checkpointing=gradient_checkpointing).load_for_unlearning(), []
    layer = net.get_submodule(decoder_layers(net)[0])
    layer.register_forward_hook(lambda _, __, output: seen.append(output[0] if isinstance(output, tuple) else output))
    assert torch.equal(layer_output(net, 0, BATCH), seen[0][BATCH.response_mask])


def test_the_forget_loss_is_zero_where_the_activations_are_steered(make_backbone, monkeypatch):
    module = built(make_backbone(), layer=0, steering_coefficient=3.0)
    target = 3.0 * steering_vector(32, 1)
    monkeypatch.setattr("unlearn_lightning.objectives.rmu.layer_output", lambda *_: target.expand(6, 32))
    assert module.forget_loss(BATCH).tolist() == pytest.approx([0, 0], abs=1e-6)
    monkeypatch.setattr("unlearn_lightning.objectives.rmu.layer_output", lambda *_: torch.zeros(6, 32))
    # The mean square of c · u over 32 units is 9 / 32, at two and at four tokens.
    assert module.forget_loss(BATCH).tolist() == pytest.approx([2 * 9 / 32, 4 * 9 / 32], rel=1e-5)


@pytest.mark.parametrize("lora", [None, Lora(rank=2)])
@pytest.mark.parametrize(("part", "number"), [("down_proj", 1), ("", 7)])
def test_the_chosen_weights_alone_are_trained_also_behind_a_reference(lora, part, number, make_backbone):
    # Attention has four matrices and the MLP three; an adapter has two for each, and full fine-tuning also trains two norms.
    module = built(make_backbone(lora=lora), layer=0, trained_parameters=part)
    names = module.trainable_names()
    assert len(names) == (2 * number if lora else number + 2 * (part == ""))
    assert all(".layers.0." in name and part in name for name in names)
    if lora:
        module.reference_log_likelihood(BATCH)
        module.reference_activations(BATCH)
        assert module.trainable_names() == names


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"layer": 1}, "steers one of the layers 0 to 0 of this model's 2, got layer 1"),
        ({"layer": -1}, "got layer -1"),
        ({"trained_layers": [1]}, r"trains layers from 0 to the steered one, 0; got trained_layers \[1\]"),
        ({"trained_layers": []}, r"got trained_layers \[\]"),
        ({"trained_parameters": "c_proj"}, "finds no trainable weight named 'c_proj'"),
        ({"steering_coefficient": 0.0}, "needs steering_coefficient above 0"),
    ],
)
def test_meaningless_settings_are_refused(values, said, make_backbone):
    with pytest.raises(ValueError, match=said):
        built(make_backbone(), **values)


def test_other_objectives_have_no_activations_to_retain(make_backbone):
    with pytest.raises(ValueError, match=r"NPO has no retain\.loss activations, but cross_entropy, kl\."):
        NPO(make_backbone(), retain=RetainTerm(ChatStage(source="unread"), "activations"))


@pytest.mark.parametrize("lora", [None, ADAPTER])
def test_micro_batches_give_the_same_weights_and_the_retain_loss_begins_at_zero(lora, corpus, questions, kept, tmp_path):
    more = merged(retained(kept, weight=2.0), {"model": {"init_args": {"backbone": {"lora": lora}}}})

    def run(micro):
        changed = merged(more, {"data": {"init_args": {"micro_batch_size": micro}}})
        return fit(settings(corpus, questions, tmp_path / f"micro{micro}", "RMU", **changed)).model

    module, _ = run(8), run(1)
    whole, other = weights(tmp_path / "micro8"), weights(tmp_path / "micro1")
    for key, value in whole.items():
        torch.testing.assert_close(other[key], value, atol=1e-5, rtol=0)
    told = logged_steps(tmp_path / "micro8")
    assert told[0]["train/retain_loss"] == pytest.approx(0, abs=1e-9)
    assert told[4]["train/retain_loss"] > 1e-8
    assert told[4]["train/forget_loss"] < told[0]["train/forget_loss"]
    assert told[0]["train/activation_norm"] > 0
    # With an adapter the starting model is there; otherwise the activations of what is seen are: five steps of four see all 13.
    assert (module._kept_activations is None) == (lora is not None)
    assert lora or len(module._kept_activations.rows) == 13
    assert run_json(tmp_path / "micro8")["local"] is False


def test_only_what_the_run_sees_is_kept(corpus, questions, kept, tmp_path):
    module = fit(settings(corpus, questions, tmp_path / "run", "RMU", **merged(retained(kept), {"trainer": {"max_steps": 2}}))).model
    assert len(module._kept_activations.rows) == 8


def test_activations_that_would_not_fit_are_refused_before_work_starts(corpus, questions, kept, tmp_path, monkeypatch):
    monkeypatch.setattr(held, "LIMIT", 1000)
    with pytest.raises(ValueError, match=r"RMU compares activations .* response tokens of the retain data times 32 units.*backbone\.lora"):
        fit(settings(corpus, questions, tmp_path / "run", "RMU", **retained(kept)))


def test_an_adapter_of_which_a_part_was_trained_is_saved_whole_and_read_again(corpus, questions, kept, tmp_path):
    more = merged(retained(kept), {"model": {"init_args": {"trained_parameters": "down_proj", "backbone": {"lora": ADAPTER}}}})
    backbone = fit(settings(corpus, questions, tmp_path / "run", "RMU", **more)).model.backbone
    found = weights(tmp_path / "run")
    assert len(found) == 2 * 2 * 7
    moved = {key for key, value in found.items() if "lora_B" in key and value.abs().max() > 0}
    assert {key.partition(".layers.")[2] for key in moved} == {"0.mlp.down_proj.lora_B.weight"}
    dataclasses.replace(backbone, adapter=str(tmp_path / "run/adapter")).load_for_unlearning()
