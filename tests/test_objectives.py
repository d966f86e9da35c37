"""Losses by hand, at their limits, and against each other."""

import dataclasses
import math

import lightning.pytorch as pl
import pytest
import torch
from torch.nn import functional

from unlearn_lightning.data import ChatStage, Encoded, collate, identity
from unlearn_lightning.modules import GRADIENT_WEIGHT, StageFineTuning
from unlearn_lightning.modules.gradient_weight import WeightCourse
from unlearn_lightning.modules.reference_file import as_tensors, from_tensors
from unlearn_lightning.objectives.gradient_ascent import GradientAscent
from unlearn_lightning.objectives.npo import NPO, npo_loss, npo_weight
from unlearn_lightning.objectives.simnpo import SimNPO, simnpo_loss, simnpo_weight

EXAMPLES = [Encoded("a", [6, 7, 8], [9, 10]), Encoded("b", [7, 9], [11, 12, 13, 5])]
BATCH = collate(EXAMPLES, pad_id=0)


def test_npo_at_the_reference_is_two_log_two_over_beta():
    same = torch.tensor([-3.0, -7.0])
    torch.testing.assert_close(npo_loss(same, same, beta=0.5), torch.full((2,), 4 * math.log(2)))


def test_npo_by_hand():
    # log-likelihood fell by 2: (2/0.5) * log(1 + exp(0.5 * -2)) = 4 * log(1 + e^-1)
    loss = npo_loss(torch.tensor([-5.0]), torch.tensor([-3.0]), beta=0.5)
    torch.testing.assert_close(loss, torch.tensor([4 * math.log(1 + math.exp(-1))]))


def test_npo_vanishes_when_forgotten_and_is_linear_when_not():
    ref = torch.zeros(1)
    assert npo_loss(torch.tensor([-1e4]), ref, 0.5).item() == 0
    assert npo_loss(torch.tensor([1e4]), ref, 0.5).item() == pytest.approx(2e4)


def test_npo_gradient_tends_to_gradient_ascents_as_beta_vanishes():
    log_lik = torch.tensor([-4.0], dtype=torch.float64, requires_grad=True)
    npo_loss(log_lik, torch.tensor([-3.0], dtype=torch.float64), beta=1e-8).backward()
    assert log_lik.grad.item() == pytest.approx(1.0, abs=1e-6)


def test_simnpo_by_hand():
    # un-normalised, beta 1, log pi = -1: 2 log(1 + e^-1); normalised with margin: -(2/2.5) log sigma(2.5 * 0.5 - 1)
    torch.testing.assert_close(simnpo_loss(torch.tensor([-1.0]), beta=1.0), torch.tensor([2 * math.log(1 + math.exp(-1))]))
    expected = 0.8 * math.log(1 + math.exp(-(2.5 * 0.5 - 1)))
    torch.testing.assert_close(simnpo_loss(torch.tensor([-0.5]), beta=2.5, gamma=1.0), torch.tensor([expected]))


def test_unnormalised_simnpo_has_no_gradient_left_past_twenty_nats():
    log_lik = torch.tensor([-20.0], requires_grad=True)
    simnpo_loss(log_lik, beta=1.0).backward()
    assert 0 < log_lik.grad.item() < 1e-8


LOSSES = {
    "npo": (lambda x: npo_loss(x, torch.full_like(x, -3.0), 0.5), lambda x: npo_weight(x, torch.full_like(x, -3.0), 0.5)),
    "simnpo": (lambda x: simnpo_loss(x, 1.0), lambda x: simnpo_weight(x, 1.0)),
    "simnpo with a margin": (lambda x: simnpo_loss(x, 2.5, 1.0), lambda x: simnpo_weight(x, 2.5, 1.0)),
}


@pytest.mark.parametrize("name", LOSSES)
def test_the_gradient_weight_is_the_losss_slope(name):
    loss, weight = LOSSES[name]
    log_lik = torch.tensor([-9.0, -3.0, -0.5], dtype=torch.float64, requires_grad=True)
    loss(log_lik).sum().backward()
    torch.testing.assert_close(weight(log_lik.detach()), log_lik.grad)


@pytest.mark.parametrize("cls", [NPO, SimNPO])
def test_a_steps_gradient_weight_is_the_mean_over_its_examples_whatever_the_micro_batches(cls, make_backbone, lora):
    """Padded rows, which `real` marks, count nothing; NPO's weight at the reference is 1."""
    module = built(cls, make_backbone(lora=lora))
    padded = dataclasses.replace(BATCH, real=torch.tensor([True, False]), batch_examples=1)
    module.forget_loss(padded)
    alone = module._step_values.pop(GRADIENT_WEIGHT)
    for batch in (padded, dataclasses.replace(padded, real=torch.tensor([False, True]))):
        module.forget_loss(dataclasses.replace(batch, batch_examples=2))
    halves = module._step_values.pop(GRADIENT_WEIGHT)
    module.forget_loss(BATCH)
    torch.testing.assert_close(halves, module._step_values[GRADIENT_WEIGHT])
    assert alone != halves or cls is NPO
    assert cls is SimNPO or halves.item() == pytest.approx(1.0, abs=1e-5)


def test_where_the_weight_is_spent_is_said_and_survives_a_stop():
    course = WeightCourse()
    for step, weight in enumerate([0.8, 0.5, 0.009], start=1):
        course.note(step, weight)
    assert course.sentence(4) == ""
    course = WeightCourse(**dataclasses.asdict(course))
    course.note(4, 0.0079)
    course.note(5, 0.001)
    assert course.sentence(16).startswith("The gradient's weight fell below 1% of its start at step 4 of 16:")
    silent = WeightCourse()
    silent.note(1, None)
    assert silent == WeightCourse()


@pytest.mark.parametrize(("cls", "settings"), [(NPO, {"beta": 0.0}), (SimNPO, {"beta": -1.0}), (SimNPO, {"gamma": 1.0})])
def test_meaningless_settings_are_refused(cls, settings, make_backbone):
    with pytest.raises(ValueError, match=r"beta above 0|length_normalized"):
        cls(make_backbone(), **settings)


def built(cls, backbone, **settings):
    module = cls(backbone, **settings)
    module.configure_model()
    return module


def gradients(module):
    module.zero_grad()
    module.loss(BATCH).sum().backward()
    return {name: p.grad.clone() for name, p in module.named_parameters() if p.grad is not None}


def test_gradient_ascent_is_minus_fine_tuning(make_backbone):
    down, up = gradients(built(StageFineTuning, make_backbone())), gradients(built(GradientAscent, make_backbone()))
    assert down.keys() == up.keys()
    for name, gradient in down.items():
        torch.testing.assert_close(up[name], -gradient)


@pytest.mark.parametrize("architecture", ["llama", "qwen2"])
def test_npo_starts_at_two_log_two_over_beta_with_the_adapters_as_reference(make_backbone, lora, architecture):
    module = built(NPO, make_backbone(architecture, lora), beta=0.5)
    torch.testing.assert_close(module.loss(BATCH), torch.full((2,), 4 * math.log(2)), atol=1e-5, rtol=0)


def test_the_reference_does_not_move_with_the_adapter(make_backbone, lora):
    module = built(NPO, make_backbone(lora=lora))
    before = module.reference_log_likelihood(BATCH)
    with torch.no_grad():
        for p in module.parameters():
            if p.requires_grad:
                p.add_(0.1)
    assert (module.response_log_likelihood(BATCH) - before).abs().min() > 1e-3
    torch.testing.assert_close(module.reference_log_likelihood(BATCH), before, atol=0, rtol=0)


def test_asking_for_the_reference_leaves_training_as_it_was(make_backbone, lora):
    module = built(NPO, make_backbone(lora=lora))
    trainable = module.trainable_names()
    module.reference_log_likelihood(BATCH)
    assert module.net.training
    assert module.trainable_names() == trainable
    assert all("lora" in name for name in trainable)


def test_simnpo_forms_differ_by_the_length(make_backbone):
    summed = built(SimNPO, make_backbone(), length_normalized=False)
    normalised = built(SimNPO, make_backbone(), length_normalized=True)
    total = summed.response_log_likelihood(BATCH)
    torch.testing.assert_close(summed.loss(BATCH), simnpo_loss(total, 1.0))
    torch.testing.assert_close(normalised.loss(BATCH), simnpo_loss(total / torch.tensor([2.0, 4.0]), 1.0))


def swapped(batch):
    """The second row's tokens under the first row's place in the data, and the other way round."""
    return dataclasses.replace(batch, **{name: getattr(batch, name).flip(0) for name in ("input_ids", "attention_mask", "response_mask")})


OTHERS = {
    "assembled by hand": lambda batch: collate([Encoded("c", [6, 7], [20, 21, 22]), Encoded("d", [9], [23])], pad_id=0),
    "other tokens": lambda batch: dataclasses.replace(batch, input_ids=batch.input_ids.where(batch.input_ids != 10, 30)),
    "another prompt": lambda batch: dataclasses.replace(batch, input_ids=batch.input_ids.where(batch.input_ids != 6, 30)),
    "another response mask": lambda batch: dataclasses.replace(batch, response_mask=batch.response_mask & (batch.input_ids != 9)),
    "one known row of two": lambda batch: collate([EXAMPLES[0], Encoded("c", [6, 7], [20, 21])], pad_id=0),
    "rows swapped": swapped,
    "padded on the left": lambda batch: collate(EXAMPLES, pad_id=0, padding_side="left"),
    "wider": lambda batch: collate([*EXAMPLES, Encoded("c", [6] * 9, [20])], pad_id=0),
}


@pytest.mark.parametrize("kind", OTHERS)
def test_a_cached_reference_is_never_given_to_other_tokens(make_backbone, lora, kind):
    """The truth is the reference model's own; cached values of other rows were given by their place in the batch."""
    module, batch = built(NPO, make_backbone(lora=lora), cache_reference=True), OTHERS[kind](BATCH)
    with torch.no_grad():
        truth = module.reference_log_likelihood(batch)
        module._reference = dict(zip(map(identity, EXAMPLES), module.reference_log_likelihood(BATCH).tolist(), strict=True))
        for p in module.parameters():
            p += 0.1 * p.requires_grad
    torch.testing.assert_close(module.reference_log_likelihood(batch), truth, atol=1e-5, rtol=0)


class Preference(NPO):
    """DPO of a second response over the training data's own, at beta 0.05."""

    named = True

    @staticmethod
    def second(place, example):
        return Encoded(str(place), example.prompt_ids, [9, 8, 7 + place])

    def further_reference_examples(self):
        return [self.second(*one) for one in enumerate(self.trainer.datamodule.encoded["train"])] * self.named

    def forget_loss(self, batch):
        seconds = [self.second(i, self.trainer.datamodule.encoded["train"][i]) for i in batch.example_index.tolist()]
        other = collate(seconds, self.tokenizer.pad_token_id).to(self.device)
        kept, lost = (self.response_log_likelihood(b) - self.reference_log_likelihood(b) for b in (other, batch))
        return -functional.logsigmoid(0.05 * (kept - lost)) / 0.05


class Unnamed(Preference):
    """The same, without naming its second responses."""

    named = False


def first_loss(cls, backbone, questions, **settings):
    data = ChatStage(questions, held_out_source=questions, batch_size=8, seed=1)
    trainer = pl.Trainer(
        accelerator="cpu", max_steps=1, logger=False, enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False,
        use_distributed_sampler=False,
    )  # fmt: skip
    module, losses = cls(backbone, **settings), []
    plain = module.forget_loss
    module.forget_loss = lambda batch: losses.append(plain(batch)) or losses[-1]
    trainer.fit(module, data)
    return module, losses[0]


@pytest.mark.parametrize("named", [True, False])
@pytest.mark.parametrize("adapter", [True, False])
def test_an_objective_with_second_responses_starts_where_its_formula_says(make_backbone, lora, questions, adapter, named):
    """Full fine-tuning has no model to ask for a response that was not named."""
    backbone, cls = make_backbone(lora=lora if adapter else None), Preference if named else Unnamed
    if not (adapter or named):
        with pytest.raises(ValueError, match=r"of 8 of 8 responses .* return these examples from Unnamed\.further_reference_examples"):
            first_loss(cls, backbone, questions)
        return
    module, loss = first_loss(cls, backbone, questions, cache_reference=True)
    torch.testing.assert_close(loss, torch.full((8,), 20 * math.log(2)), atol=1e-4, rtol=0)
    assert len(module._reference) == 19 * (1 + named)
    assert from_tensors(as_tensors(module._reference)) == module._reference, "as a checkpoint keeps it"
