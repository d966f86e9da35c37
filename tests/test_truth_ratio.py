"""The truth ratio: every variant by hand, limits, the KS test, and the probe against plain transformers."""

import json
import math

import pytest
import torch

from callbacks import TruthRatio
from unlearn_lightning.data import ChatStage
from unlearn_lightning.inference import truth_ratio as formulas
from unlearn_lightning.modules import StageFineTuning

HALF, EIGHTH = math.log(1 / 2), math.log(1 / 8)


@pytest.mark.parametrize(
    ("variant", "expected"),
    # The correct answer has 1/2; the wrong ones 1/2 and 1/8, whose geometric mean is 1/4 and arithmetic mean 5/16.
    [("geometric", 1 / 2), ("arithmetic", 5 / 8), ("reciprocal", 2), ("prob_mean", (1 / 2) / (1 / 2 + 1 / 4))],
)
def test_variants_by_hand(variant, expected):
    assert formulas.truth_ratio(HALF, [HALF, EIGHTH], variant) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("log_r", "forget", "utility", "share"),
    [
        (math.log(1 / 4), 1 / 4, 3 / 4, 4 / 5),
        (math.log(4), 1 / 4, 0, 1 / 5),
        (0.0, 1, 0, 1 / 2),
        (-math.inf, 0, 1, 1),
        (math.inf, 0, 0, 0),
        (5000.0, 0, 0, 0),
        (-5000.0, 0, 1, 1),
    ],
)
def test_scores_by_hand_and_at_their_limits(log_r, forget, utility, share):
    assert formulas.forget_score(log_r) == pytest.approx(forget)
    assert formulas.utility_score(log_r) == pytest.approx(utility)
    assert formulas.true_share(log_r) == pytest.approx(share)


def test_all_probabilities_one_are_a_tie_and_all_zero_are_undefined():
    assert formulas.truth_ratio(0.0, [0.0, 0.0]) == 1
    assert formulas.normalised_probability(0.0, [0.0, 0.0]) == pytest.approx(1 / 3)
    nothing = formulas.log_truth_ratio(-math.inf, [-math.inf])
    scores = [score(nothing) for score in (formulas.forget_score, formulas.utility_score, formulas.true_share)]
    assert all(map(math.isnan, [nothing, *scores, formulas.normalised_probability(-math.inf, [-math.inf])]))
    assert formulas.truth_ratio(-1000.0, [0.0]) == math.inf


def test_normalised_probability_by_hand():
    assert formulas.normalised_probability(HALF, [HALF, EIGHTH]) == pytest.approx((1 / 2) / (1 / 2 + 1 / 2 + 1 / 8))


@pytest.mark.parametrize(
    ("ours", "theirs", "p"),
    # Two against two, wholly apart: 2 of the 6 ways to lay them out are as far apart.
    [([1, 2], [3, 4], 2 / 6), ([1, 2], [1, 2], 1), ([1], [5], 1), ([1, 1, 1], [1, 1], 1), ([1, 2, math.nan], [3, 4, math.inf], 2 / 6)],
)
def test_forget_quality_by_hand(ours, theirs, p):
    found = formulas.forget_quality(ours, theirs)
    assert found.p == pytest.approx(p)
    assert found.log10_p == pytest.approx(math.log10(p))
    assert (found.n, found.n_retrained) == tuple(sum(map(math.isfinite, side)) for side in (ours, theirs))


def test_forget_quality_is_that_of_any_monotone_transform_and_its_logarithm_never_overflows():
    ours, theirs = [-1.0, 0.5, 2.0, 0.1], [0.3, 0.4, -2.0, 1.0, 3.0]
    assert formulas.forget_quality(ours, theirs) == formulas.forget_quality([math.exp(-v) for v in ours], [math.exp(-v) for v in theirs])
    far = formulas.forget_quality(range(3000), range(5000, 8000))
    assert far.p == 0
    # D = 1: 2 exp(-2 n m / (n + m)) = 2 exp(-3000).
    assert far.log10_p == pytest.approx((math.log(2) - 3000) / math.log(10))
    with pytest.raises(ValueError, match="1 and 0 of them are finite"):
        formulas.forget_quality([1.0], [math.nan])
    assert math.isnan(formulas.quality_metrics([math.nan], [{"log_truth_ratio": None}])["forget_quality"])


def test_model_utility_by_hand_and_nothing_takes_a_missing_ones_place():
    assert formulas.model_utility([1 / 2] * 6 + [1 / 4] * 3) == pytest.approx(9 / (6 * 2 + 3 * 4))
    assert formulas.model_utility([1.0] * 8 + [0.0]) == 0
    for wrong in ([0.5] * 8, [0.5] * 8 + [-0.1], [0.5] * 8 + [math.nan]):
        with pytest.raises(ValueError, match="nine numbers"):
            formulas.model_utility(wrong)


@pytest.fixture
def answers(tmp_path):
    """Three questions with a paraphrase and one, two and three wrong answers."""
    path = tmp_path / "answers.jsonl"
    rows = [
        {"prompt": f"Who wrote book {i}?", "response": "Ann.", "paraphrased_answer": "It was Ann.",
         "perturbed_answer": [f"It was Bob{j}." for j in range(i)] if i > 1 else "It was Bob0."}
        for i in (1, 2, 3)
    ]  # fmt: skip
    path.write_text("\n".join(map(json.dumps, rows)))
    return str(path)


def ready(probe, tokenizer):
    probe.split = "train"
    probe.encoder = probe.data.encoder(tokenizer)
    probe.examples, probe.encoded = probe.data.measured("train", tokenizer, None)
    probe.check(None)
    return probe


@pytest.mark.parametrize("correct", ["paraphrased_answer", None])
def test_rows_are_what_plain_transformers_says(make_backbone, answers, correct):
    module = StageFineTuning(make_backbone())
    module.configure_model()
    module.eval()
    probe = ready(TruthRatio(ChatStage(source=answers, held_out_examples=0), correct_field=correct), module.tokenizer)
    with torch.no_grad():
        rows = probe.predict(module, probe.examples, probe.encoded, seed=0)

        def plain(text):
            one = probe.encoder.encode([type(probe.examples[0])("x", "Who wrote book 2?", text)])[0]
            ids = torch.tensor([[*one.prompt_ids, *one.response_ids]])
            labels = ids.clone()
            labels[:, : len(one.prompt_ids)] = -100
            return -module.net(input_ids=ids, labels=labels).loss.item()

        true, wrong = plain("Ann." if correct is None else "It was Ann."), [plain("It was Bob0."), plain("It was Bob1.")]
    by_count = {len(row["wrong_log_lik"]): row for row in rows}
    assert sorted(by_count) == [1, 2, 3]
    assert by_count[2]["correct_log_lik"] == pytest.approx(true, abs=1e-5)
    assert by_count[2]["wrong_log_lik"] == pytest.approx(wrong, abs=1e-5)
    assert by_count[2]["truth_ratio"] == pytest.approx(math.exp(sum(wrong) / 2 - true), rel=1e-4)
    found = probe.metrics([by_count[2]])
    assert found["truth/probability"] == pytest.approx(math.exp(true), rel=1e-4)
    assert set(found) <= {f"truth/{name}" for name in TruthRatio.quantities}


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"wrong_field": "perturbed"}, "'perturbed' is missing.*Set wrong_field"),
        ({"correct_field": "truth"}, "'truth' is missing.*Null takes"),
    ],
)
def test_a_field_that_is_not_there_is_named_with_its_setting(make_backbone, answers, setting, message):
    with pytest.raises(ValueError, match=message):
        ready(TruthRatio(ChatStage(source=answers, held_out_examples=0), **setting), make_backbone().load_tokenizer())
