"""Distances between whole distributions: by hand, with both models' adapters on one base, and with full fine-tuning."""

import math
from dataclasses import asdict

import pytest
import torch
from peft import PeftModel

from callbacks import RetrainedDistribution
from unlearn_lightning.data import Encoded, collate
from unlearn_lightning.inference.distribution import distribution_distances
from unlearn_lightning.inference.likelihood import response_logits
from unlearn_lightning.models.adapters import TRAINABLE
from unlearn_lightning.models.merging import stack
from unlearn_lightning.modules import StageFineTuning
from unlearn_lightning.objectives.gradient_ascent import GradientAscent

LOG2 = math.log(2)


@pytest.mark.parametrize(
    ("retrained", "model", "kl", "js"),
    [
        # (1/2, 1/2) against (1/4, 3/4): their mean is (3/8, 5/8).
        ([0.5, 0.5], [0.25, 0.75], 0.5 * math.log(2) + 0.5 * math.log(2 / 3),
         (0.5 * math.log(4 / 3) + 0.5 * math.log(4 / 5) + 0.25 * math.log(2 / 3) + 0.75 * math.log(6 / 5)) / 2),
        ([0.5, 0.5], [0.5, 0.5], 0, 0),
        ([1.0, 0.0], [0.0, 1.0], math.inf, LOG2),
        ([1.0, 0.0], [0.5, 0.5], LOG2, (math.log(4 / 3) + 0.5 * math.log(2 / 3) + 0.5 * LOG2) / 2),
    ],
)  # fmt: skip
def test_by_hand_and_at_the_limits(retrained, model, kl, js):
    found = distribution_distances(torch.tensor([retrained]).log(), torch.tensor([model]).log())
    assert [value.item() for value in found] == pytest.approx([kl, js], abs=1e-6)


def test_pieces_change_nothing(monkeypatch):
    one, other = torch.randn(5, 7, generator=torch.manual_seed(1)), torch.randn(5, 7)
    whole = distribution_distances(one, other)
    monkeypatch.setattr("unlearn_lightning.inference.distribution.CHUNK", 14)
    torch.testing.assert_close(distribution_distances(one, other), whole)


def random_adapter(backbone, folder, seed):
    """An adapter with random weights, as a stage would leave it."""
    net = backbone.load_for_fine_tuning()
    with torch.no_grad():
        for name, weight in net.named_parameters():
            if ".lora_" in name:
                weight.copy_(0.3 * torch.randn(weight.shape, generator=torch.manual_seed(seed)))
    net.save_pretrained(folder)
    return str(folder)


@pytest.mark.parametrize("merged", [True, False])
def test_the_retrained_adapter_on_this_runs_own_base_is_the_retrained_model(make_backbone, lora, tmp_path, merged):
    plain = make_backbone(lora=lora)
    stage, retrained = (random_adapter(plain, tmp_path / name, seed) for seed, name in enumerate(("stage", "retrained")))
    module = GradientAscent(make_backbone(lora=lora, adapter=stage))
    module.configure_model()
    if not merged:
        module.net = module.backbone._fresh_adapter(stack(module.backbone.load_base(), [stage]))
    assert len(module.net.peft_config) == (1 if merged else 2)
    with torch.no_grad():
        for name, weight in module.net.named_parameters():
            if f".{TRAINABLE}." in name:
                weight.add_(0.1)
    batch = collate([Encoded("a", [6, 7], [8, 9, 10]), Encoded("b", [6], [7])], 0)
    before = {name: parameter.requires_grad for name, parameter in module.net.named_parameters()}
    module.eval()
    with torch.no_grad():
        mine = module.response_logits(batch)
        with module.other_logits({"adapter": [retrained]}) as logits:
            theirs = logits(batch)
        alone = PeftModel.from_pretrained(plain.load_base(), retrained).eval()
        expected = response_logits(alone, batch.input_ids, batch.attention_mask, batch.response_mask)
        assert (theirs - mine).abs().max() > 0.01
        torch.testing.assert_close(theirs, expected, atol=1e-4, rtol=1e-4)
        assert torch.equal(module.response_logits(batch), mine), "the network is what it was, to the last bit"
    assert {name: parameter.requires_grad for name, parameter in module.net.named_parameters()} == before


@pytest.mark.parametrize(
    ("own", "theirs", "message"),
    [
        ({"lora": None}, {"lora": {"rank": 4}}, "one has LoRA and the other none"),
        ({}, {"model": "another"}, "backbone.model is None here and another of the run"),
        ({}, {"seed": 2}, "backbone.seed is 1 here and 2 of the run"),
        ({}, {}, "tokens times .* logits of the retrained model take .* Lower `limit`"),
        (None, None, "is no run folder"),
    ],
)
def test_a_retrained_model_that_cannot_lie_on_this_base_is_refused_before_work(
    make_backbone, lora, monkeypatch, tmp_path, own, theirs, message
):
    monkeypatch.setattr("callbacks.retrained_distribution.LIMIT", 100)
    module = StageFineTuning(make_backbone(**{"lora": lora, **(own or {})}))
    probe = RetrainedDistribution(retrained=str(tmp_path))
    probe.encoded = [Encoded("a", [6], [7, 8])]
    if theirs is not None:
        settings = {
            name: getattr(make_backbone(lora=lora), name) for name in ("model", "revision", "quantization", "dtype", "seed", "adapter")
        }
        scratch = asdict(module.backbone.scratch)
        backbone = {**settings, "scratch": scratch, "lora": {"rank": 4}, **theirs}
        (tmp_path / "config.yaml").write_text("{}")
        monkeypatch.setattr("callbacks.retrained_distribution.read_config", lambda _: {"model": {"init_args": {"backbone": backbone}}})
        monkeypatch.setattr("callbacks.retrained_distribution.result_backbone", lambda _, found: found)
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        probe.check(module)
