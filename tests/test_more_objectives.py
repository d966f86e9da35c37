"""Objectives beyond the paper's three: each loss by hand, at its limits, and as a whole training step."""

import importlib
import math
import pkgutil
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from study_runs import fit, settings

from unlearn_lightning import objectives
from unlearn_lightning.data import Encoded, EpochPlan, collate, identity
from unlearn_lightning.data.batching import BatchSource
from unlearn_lightning.inference.likelihood import response_logits
from unlearn_lightning.modules import Unlearning
from unlearn_lightning.modules import reference_logits as kept
from unlearn_lightning.modules.retain import token_kl
from unlearn_lightning.objectives.alt_po import AltPO
from unlearn_lightning.objectives.ce_u import CEU, ce_u_loss
from unlearn_lightning.objectives.dpo import DPO, dpo_loss
from unlearn_lightning.objectives.gradient_ascent import GradientAscent
from unlearn_lightning.objectives.kl_ascent import KLAscent
from unlearn_lightning.objectives.random_labels import Permuted, RandomLabels, one_cycle, random_tokens
from unlearn_lightning.objectives.rmu import RMU
from unlearn_lightning.objectives.satimp import SatImp, satimp_loss
from unlearn_lightning.objectives.task_vector import TaskVector
from unlearn_lightning.objectives.undial import UNDIAL, undial_loss
from unlearn_lightning.objectives.wga import WGA, wga_loss

EXAMPLES = [Encoded("a", [6, 7, 8], [9, 10]), Encoded("b", [7, 9], [11, 12, 13, 5])]
BATCH = collate(EXAMPLES, pad_id=0)
DOUBLE = torch.float64


def gradient_of(loss, *inputs):
    loss.sum().backward()
    return [one.grad for one in inputs]


# --- by hand ---------------------------------------------------------------------------------------------------------------


def test_wga_by_hand():
    log_lik = torch.tensor([math.log(0.5), math.log(0.1), 0.0], dtype=DOUBLE, requires_grad=True)
    loss = wga_loss(log_lik, beta=2.0)
    torch.testing.assert_close(loss, torch.tensor([0.25 * math.log(0.5), 0.01 * math.log(0.1), 0.0], dtype=DOUBLE))
    # The weights have no gradient of their own: only log p does.
    torch.testing.assert_close(*gradient_of(loss, log_lik), torch.tensor([0.25, 0.01, 1.0], dtype=DOUBLE))


def test_wga_at_its_limits():
    log_lik = torch.tensor([-1e4, -2.0, 0.0])
    assert wga_loss(log_lik, 0.0).tolist() == log_lik.tolist(), "beta 0 is gradient ascent"
    assert wga_loss(log_lik, 1.0)[0] == 0, "what is forgotten is left alone"


def test_satimp_by_hand():
    log_lik = torch.tensor([math.log(0.5), math.log(0.8)], dtype=DOUBLE, requires_grad=True)
    loss = satimp_loss(log_lik, beta1=5.0, beta2=1.0)
    weights = torch.tensor([0.5**5 * 0.5, 0.8**5 * 0.2], dtype=DOUBLE)
    torch.testing.assert_close(loss, weights * log_lik.detach())
    torch.testing.assert_close(*gradient_of(loss, log_lik), weights)


def test_satimp_at_its_limits():
    # A certain token and one that is impossible have weight 0; the weight is largest at p = 5/6.
    assert satimp_loss(torch.tensor([0.0, -1e4]), 5.0, 1.0).tolist() == [0.0, 0.0]
    p = torch.linspace(0.01, 0.99, 99)
    weights = satimp_loss(p.log(), 5.0, 1.0) / p.log()
    assert p[weights.argmax()].item() == pytest.approx(5 / 6, abs=0.01)
    assert satimp_loss(torch.tensor([-3.0]), 0.0, 0.0).item() == -3.0, "both exponents 0 are gradient ascent"


def test_ce_u_by_hand():
    # p = (.5, .3, .2), the first is forgotten: q = (0, .6, .4), so -(0.6 log 0.3 + 0.4 log 0.2).
    logits = torch.tensor([[0.5, 0.3, 0.2]], dtype=torch.float32).log().requires_grad_()
    loss = ce_u_loss(logits, torch.tensor([0]))
    entropy = -(0.6 * math.log(0.6) + 0.4 * math.log(0.4))
    assert loss.item() == pytest.approx(-(0.6 * math.log(0.3) + 0.4 * math.log(0.2)), abs=1e-6)
    assert loss.item() == pytest.approx(entropy - math.log(1 - 0.5), abs=1e-6)
    # The gradient at the forgotten token's logit is its probability.
    assert gradient_of(loss, logits)[0][0, 0].item() == pytest.approx(0.5, abs=1e-6)


@pytest.mark.parametrize("height", [200.0, -200.0])
def test_ce_u_is_finite_where_the_token_is_certain_or_impossible(height):
    logits = torch.tensor([[height, 0.0, 0.0]], requires_grad=True)
    loss = ce_u_loss(logits, torch.tensor([0]))
    assert loss.isfinite().all()
    assert gradient_of(loss, logits)[0].abs().max() <= 1
    assert loss.item() == pytest.approx(math.log(2) if height < 0 else 200 + math.log(2), rel=1e-4) or height > 0


def test_undial_by_hand():
    reference = torch.tensor([[2.0, 1.0, 0.0]])
    lowered = torch.tensor([[2.0 - 3.0, 1.0, 0.0]]).softmax(-1)
    same = undial_loss(reference, reference, torch.tensor([0]), beta=3.0)
    torch.testing.assert_close(same, -(lowered * reference.log_softmax(-1)).sum(-1))
    # The least that can be reached is the lowered distribution's entropy, at that distribution.
    best = undial_loss(lowered.log(), reference, torch.tensor([0]), beta=3.0)
    torch.testing.assert_close(best, -(lowered * lowered.log()).sum(-1))
    assert best < same


def test_dpo_by_hand():
    # (2/0.1) log(1 + exp(-0.1 (1 - -2)))
    loss = dpo_loss(torch.tensor([1.0]), torch.tensor([-2.0]), beta=0.1)
    assert loss.item() == pytest.approx(20 * math.log(1 + math.exp(-0.3)), rel=1e-6)
    zero = torch.zeros(1)
    assert dpo_loss(zero, zero, 0.1).item() == pytest.approx(20 * math.log(2), rel=1e-6)
    # A preferred response that gains nothing leaves NPO's loss.
    assert dpo_loss(zero, torch.tensor([-2.0]), 0.5).item() == pytest.approx(4 * math.log(1 + math.exp(-1.0)), rel=1e-6)


# --- in a module -----------------------------------------------------------------------------------------------------------


def built(cls, backbone, **settings_):
    module = cls(backbone, **settings_)
    module.configure_model()
    return module


def test_kl_ascent_starts_as_gradient_ascent_and_is_held_back_later(make_backbone, lora):
    module = built(KLAscent, make_backbone(lora=lora), kl_weight=2.0)
    torch.testing.assert_close(module.loss(BATCH), module.response_log_likelihood(BATCH), atol=1e-5, rtol=0)
    with torch.no_grad():
        for parameter in module.parameters():
            if parameter.requires_grad:
                parameter.add_(0.05)
        inputs = BATCH.input_ids, BATCH.attention_mask, BATCH.response_mask
        expected = module.per_response(token_kl(module.reference_logits(BATCH), response_logits(module.net, *inputs)), BATCH)
        torch.testing.assert_close(module.divergence_from_start(BATCH), expected)
        assert (module.loss(BATCH) - module.response_log_likelihood(BATCH)).min() > 0


def test_ce_u_counts_all_but_each_responses_first_token(make_backbone):
    module = built(CEU, make_backbone())
    with torch.no_grad():
        logits = response_logits(module.net, BATCH.input_ids, BATCH.attention_mask, BATCH.response_mask)
        values = ce_u_loss(logits, BATCH.input_ids[BATCH.response_mask]).tolist()
        mean = module.share_of_loss(BATCH).item()
    # Two and four tokens: the first of each is left out, and the mean is over the four that are left.
    assert mean == pytest.approx((values[1] + sum(values[3:])) / 4, rel=1e-6)


def test_random_tokens_depend_on_row_seed_and_epoch_alone():
    first = random_tokens(BATCH, 320, seed=1, epoch=0)
    assert torch.equal(first, random_tokens(BATCH, 320, seed=1, epoch=0))
    assert not torch.equal(first, random_tokens(BATCH, 320, seed=2, epoch=0))
    assert not torch.equal(first, random_tokens(BATCH, 320, seed=1, epoch=1))
    alone = random_tokens(collate(EXAMPLES[1:], pad_id=0), 320, seed=1, epoch=0)
    assert torch.equal(alone[0], first[1][: alone.shape[1]]), "another batch draws others"
    kept_places = ~BATCH.response_mask
    assert torch.equal(first[kept_places], BATCH.input_ids[kept_places])
    assert first[0, 4] == 10, "the response no longer ends"
    assert first[1, 5] == 5, "the response no longer ends"


@pytest.mark.parametrize("count", [2, 3, 19])
def test_a_permutation_leaves_nothing_in_its_place(count):
    for seed in range(20):
        found = one_cycle(count, seed)
        assert sorted(found) == list(range(count))
        assert all(place != number for place, number in enumerate(found))
    assert one_cycle(19, 1) == one_cycle(19, 1) != one_cycle(19, 2)


def test_permuted_responses_are_other_prompts_and_fit():
    rows = [Encoded(str(i), [6] * (1 + i), [20 + i, 30 + i, 5]) for i in range(4)]
    permuted = Permuted(rows, seed=3, max_length=6)
    for i, one in enumerate(permuted):
        other, room = rows[one_cycle(4, 3)[i]], 6 - (1 + i)
        assert (one.id, one.prompt_ids, one.response_ids) == (rows[i].id, rows[i].prompt_ids, rows[i].response_ids)
        assert (one.alternative.prompt_ids, one.alternative.response_ids) == (rows[i].prompt_ids, other.response_ids[:room])
        assert one.alternative.truncated == (room < 3)
    assert [len(one) for one in permuted[1:3]] == [len(row) for row in rows[1:3]]


def test_a_run_on_permuted_responses_needs_no_second_response_in_the_data(corpus, questions, tmp_path):
    config = settings(corpus, questions, tmp_path / "run", cls="RandomLabels", trainer={"max_steps": 4})
    config["model"]["init_args"]["labels"] = "permuted"
    run = fit(config)
    train = run.datamodule.encoded["train"]
    assert all(one.alternative.response_ids == train.examples[train.places[i]].response_ids for i, one in enumerate(train))
    assert run.model.tokens_seen > sum(len(one.alternative) for one in train)
    config["data"]["init_args"]["train_examples"] = 1
    with pytest.raises(ValueError, match="permutes the responses of at least 2 examples, got 1"):
        fit({**config, "run_folder": str(tmp_path / "one")})


@pytest.mark.parametrize(
    ("cls", "values"),
    [
        (WGA, {"beta": -1.0}), (SatImp, {"beta1": -1.0}), (SatImp, {"beta2": math.inf}), (UNDIAL, {"beta": 0.0}), (DPO, {"beta": 0.0}),
        (KLAscent, {"kl_weight": 0.0}), (WGA, {"beta": math.nan}),
    ],
)  # fmt: skip
def test_meaningless_settings_are_refused(cls, values, make_backbone):
    with pytest.raises(ValueError, match=rf"{cls.__name__} needs .*(beta|kl_weight).*got"):
        cls(make_backbone(), **values)


# --- one step of training, of every objective that there is ------------------------------------------------------------------

EVERY = [
    (GradientAscent, {}), (WGA, {"beta": 1.0}), (SatImp, {"beta1": 1.0}), (CEU, {}), (KLAscent, {}), (UNDIAL, {}), (RandomLabels, {}),
    (RandomLabels, {"labels": "permuted"}), (RandomLabels, {"labels": "alternative"}), (DPO, {}), (AltPO, {}), (RMU, {"layer": 0}),
    (TaskVector, {}),
]  # fmt: skip


def test_every_objective_of_the_package_is_tested_here_or_in_a_file_of_its_own():
    for one in pkgutil.iter_modules(objectives.__path__):
        importlib.import_module(f"{objectives.__name__}.{one.name}")
    classes = [*Unlearning.__subclasses__(), *DPO.__subclasses__()]
    named = {cls.__name__ for cls in classes if cls.__module__.startswith(objectives.__name__)}
    assert named == {cls.__name__ for cls, _ in EVERY} | {"NPO", "SimNPO", "PDU", "PGU"}


@pytest.fixture(scope="module")
def pairs():
    """Eight ragged examples with two responses each."""
    rows = [Encoded(str(i), [6, 7, 8][: 1 + i % 3], [9 + i, 10, 11, 5][i % 2 :]) for i in range(8)]
    return [replace(e, alternative=Encoded(e.id, e.prompt_ids, [40 + i, 41, 5][i % 2 :])) for i, e in enumerate(rows)]


@pytest.mark.parametrize(("cls", "values"), EVERY)
@pytest.mark.parametrize(("micro", "devices"), [(1, 1), (2, 2)])
def test_micro_batches_and_devices_add_up_to_the_whole_step(make_backbone, lora, pairs, cls, values, micro, devices, monkeypatch):
    module = built(cls, make_backbone(lora=lora), **values).eval()
    monkeypatch.setattr(cls, "trainer", SimpleNamespace(datamodule=SimpleNamespace(seed=1)), raising=False)
    source, lengths = BatchSource(pairs, 0), tuple(map(len, pairs))

    def gradients(micro, devices):
        module.zero_grad()
        plan = EpochPlan(lengths, 8, micro, devices)
        shares = [module.share_of_loss(source[m]) for rank in range(devices) for m in plan.micro_batches(1, 0, rank)]
        sum(shares).backward()
        return sum(shares).item(), {name: p.grad.clone() for name, p in module.named_parameters() if p.grad is not None}

    (whole, expected), (added, found) = gradients(8, 1), gradients(micro, devices)
    assert added == pytest.approx(whole, abs=1e-5)
    assert any(value.abs().max() > 1e-6 for value in expected.values())
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, atol=1e-5, rtol=1e-4)


# --- the starting model's predictions, kept for full fine-tuning -------------------------------------------------------------


def test_kept_logits_are_the_starting_models_and_survive_a_checkpoint(make_backbone):
    module = built(UNDIAL, make_backbone()).eval()

    def logits(batch):
        return response_logits(module.net, batch.input_ids, batch.attention_mask, batch.response_mask)

    with torch.no_grad():
        before = logits(BATCH)
        found = kept.KeptLogits.of(EXAMPLES, 1, 0, logits)
        for parameter in module.parameters():
            parameter.mul_(1.1)
        again = kept.KeptLogits.from_state(found.state())
        for one in (found, again):
            torch.testing.assert_close(one.of_batch(BATCH), before, atol=1e-6, rtol=1e-6)
        assert (logits(BATCH) - before).abs().max() > 1e-3


@pytest.mark.parametrize("cls", [UNDIAL, KLAscent])
def test_a_run_of_full_fine_tuning_compares_with_where_it_began(corpus, questions, tmp_path, cls):
    run = fit(settings(corpus, questions, tmp_path / "run", cls=cls.__name__, trainer={"max_steps": 2}))
    module, train = run.model, run.datamodule.encoded["train"]
    rows = module._kept_logits.rows
    assert rows.keys() == {identity(example) for example in train}
    checkpoint = {"state_dict": {}}
    module.on_save_checkpoint(checkpoint)
    assert checkpoint["reference_logits"]["logits"].shape == (sum(len(e.response_ids) for e in train), 320)


def test_predictions_that_would_not_fit_are_refused_before_work_starts(corpus, questions, tmp_path, monkeypatch):
    monkeypatch.setattr(kept, "LIMIT", 1000)
    with pytest.raises(ValueError, match=r"UNDIAL compares whole distributions .* response tokens times 320 logits.*backbone\.lora"):
        fit(settings(corpus, questions, tmp_path / "run", cls="UNDIAL"))


def test_a_response_of_one_token_is_refused_by_ce_u(make_backbone):
    module = CEU(make_backbone())
    module._training_examples = lambda: [Encoded("long", [6], [7, 8]), Encoded("short", [6], [7])]
    with pytest.raises(ValueError, match=r"1 responses have only one, such as that of short\. Set skip_first to false"):
        module.setup("fit")
