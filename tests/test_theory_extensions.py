"""Beyond the theorem: limits of every extension, certificates against exact values, and removal that reaches the retrained model."""

import csv
import dataclasses
import json
from itertools import islice

import numpy as np
import pytest
import torch
from scipy.stats import binomtest
from test_theory import SMALL, started

from unlearn_lightning.main import main
from unlearn_lightning.objectives.npo import npo_loss
from unlearn_lightning.theory import Setup, distance, draw, train
from unlearn_lightning.theory.certificates import audit, clopper_pearson, gaussian_delta, share_beyond
from unlearn_lightning.theory.extensions import (
    Unlearner,
    critical_decay,
    critical_retain_weight,
    gap_matrix,
    predicted_rate,
    stable_retain_weight,
)
from unlearn_lightning.theory.removal import newton_removal
from unlearn_lightning.theory.survival import run

PLAIN = Unlearner("ascent alone")


def after(unlearner, problem, theta, steps, eta=SMALL.eta, order="UA"):
    return next(islice(unlearner.run(problem, order, theta, eta), steps, None))


@pytest.mark.parametrize(
    "unlearner",
    [
        PLAIN,
        Unlearner("all rows", batch_size=3),
        Unlearner("no bound", npo_beta=1e-18),
        Unlearner("zeros", retain_weight=0.0, weight_decay=np.zeros(4)),
    ],
    ids=lambda unlearner: unlearner.name,
)
def test_without_their_effect_all_extensions_are_ascent(unlearner):
    problem, ascent, (theta, _) = started(SMALL)
    np.testing.assert_allclose(after(unlearner, problem, theta, 60), ascent.closed_form(theta, 60), rtol=1e-7)


def test_one_step_by_its_definition():
    """Gradients by autograd of the losses as they are written down."""
    problem, _, (start, _) = started(SMALL)
    unlearner = Unlearner("all", retain_weight=0.7, weight_decay=0.2, npo_beta=1.5)
    one = after(unlearner, problem, start, 1)
    two = after(unlearner, problem, start, 2)
    for seed in range(4):
        x, y, x_r, y_r = (
            torch.tensor(part[seed]) for stage in "UA" for part in (problem.stages[stage].inputs, problem.stages[stage].labels)
        )
        theta = torch.tensor(one[seed], requires_grad=True)
        reference = (x @ torch.tensor(start[seed]) - y) ** 2
        forget = npo_loss(-((x @ theta - y) ** 2), -reference, beta=1.5).mean()
        loss = forget + 0.7 * ((x_r @ theta - y_r) ** 2).mean() + 0.2 / 2 * (theta**2).sum()
        loss.backward()
        np.testing.assert_allclose(two[seed], (theta - SMALL.eta * theta.grad).detach().numpy(), rtol=1e-10)


def test_a_linear_gap_is_multiplied_by_its_matrix():
    problem, _, (one, other) = started(SMALL)
    unlearner = Unlearner("both", retain_weight=0.4, weight_decay=np.array([0.0, 0.1, 0.2, 0.3]))
    power = np.linalg.matrix_power(gap_matrix(unlearner, problem, "UA", SMALL.eta), 30)
    gap = after(unlearner, problem, one, 30) - after(unlearner, problem, other, 30)
    np.testing.assert_allclose(gap, (power @ (one - other)[..., None])[..., 0], rtol=1e-8, atol=1e-12)
    with pytest.raises(ValueError, match="minibatches and NPO have none"):
        gap_matrix(Unlearner("x", npo_beta=1.0), problem, "UA", 0.1)


def test_the_critical_values_part_growth_from_decline():
    problem = draw(SMALL, range(4))
    decay = critical_decay(problem, SMALL.eta)
    for share, sign in ((0.99, 1), (1.01, -1)):
        rate = predicted_rate(Unlearner("x", weight_decay=share * decay), problem, "UA", SMALL.eta)
        assert (np.sign(rate) == sign).all()
    spanning = draw(dataclasses.replace(SMALL, rows=60), range(4))
    weight = critical_retain_weight(spanning, "UA")
    assert (weight < stable_retain_weight(spanning, "UA", SMALL.eta)).all()
    for share, sign in ((0.99, 1), (1.01, -1)):
        rate = predicted_rate(Unlearner("x", retain_weight=share * weight), spanning, "UA", SMALL.eta)
        assert (np.sign(rate) == sign).all()


def test_no_retain_weight_stops_growth_where_the_model_is_over_parameterised():
    problem = draw(SMALL, range(4))
    assert np.isinf(critical_retain_weight(problem, "UA")).all()
    stable = stable_retain_weight(problem, "UA", SMALL.eta)
    for share in (0.01, 0.5, 0.99):
        assert (predicted_rate(Unlearner("x", retain_weight=share * stable), problem, "UA", SMALL.eta) > 0.001).all()
    # Above the stable weight the retain term itself blows up along the rows that it should keep.
    assert (predicted_rate(Unlearner("x", retain_weight=1.5 * stable), problem, "UA", SMALL.eta) > 2 * np.log(1.9)).all()


def test_minibatches_use_every_row_once_per_epoch():
    problem, _, _ = started(SMALL)
    batches = Unlearner("x", batch_size=2)._batches(3, seed=5, order="UA")
    masks = np.stack(list(islice(batches, 10)))
    assert (masks.sum(1) == 2).all()
    assert np.ptp(masks.sum(0)) <= 1
    with pytest.raises(ValueError, match="between 1 and the number of forget rows, 3; got 4"):
        next(Unlearner("x", batch_size=4).run(problem, "UA", np.zeros((4, 24)), 0.1))


def test_where_divergence_survives_and_where_it_stops():
    setup, seeds = Setup(dimension=40, rows=10, forget_rows=4, test_rows=10), range(6)
    few, many = draw(setup, seeds), draw(dataclasses.replace(setup, rows=80), seeds)
    stable, weight = stable_retain_weight(few, "UA", setup.eta), critical_retain_weight(many, "UA")
    decay = critical_decay(few, setup.eta)
    expected = [
        (few, PLAIN, "exponential"),
        (few, Unlearner("retain", retain_weight=0.5 * stable), "exponential"),
        (many, Unlearner("retain", retain_weight=2 * weight), "shrinks"),
        (few, Unlearner("decay", weight_decay=0.5 * decay), "exponential"),
        (few, Unlearner("decay", weight_decay=2 * decay), "shrinks"),
        (few, Unlearner("batches", batch_size=1), "exponential"),
        (few, Unlearner("npo", npo_beta=1.0), "slows down"),
    ]
    for problem, unlearner, fate in expected:
        found = run("group", unlearner, setup, problem, seeds, 300)
        assert found.fate == fate, unlearner.name
        if unlearner.gap_is_linear and fate == "exponential":
            assert found.late.mean == pytest.approx(found.predicted.mean, abs=0.01)
    npo = run("group", Unlearner("npo", npo_beta=1.0), setup, few, seeds, 300)
    ascent = run("group", PLAIN, setup, few, seeds, 300)
    assert (npo.distance[-1] < 1e-3 * ascent.distance[-1]).all()


@pytest.mark.parametrize(("hits", "draws"), [(0, 10), (3, 10), (10, 10), (387, 400)])
def test_clopper_pearson_is_scipys(hits, draws):
    low, high = clopper_pearson(hits, draws, alpha=0.025)
    exact = binomtest(hits, draws).proportion_ci(0.95, method="exact")
    assert (low, high) == pytest.approx((exact.low, exact.high), abs=1e-9)


def test_clopper_pearson_by_hand_and_its_refusals():
    assert clopper_pearson(0, 20, 0.05) == (0.0, pytest.approx(1 - 0.05 ** (1 / 20)))
    assert clopper_pearson(20, 20, 0.05) == (pytest.approx(0.05 ** (1 / 20)), 1.0)
    for bad in ((1, 0, 0.05), (3, 2, 0.05), (1, 2, 0.0)):
        with pytest.raises(ValueError, match="at least one draw"):
            clopper_pearson(*bad)
    found = share_beyond(np.array([0.1] * 19 + [0.0]), tolerance=0.01, alpha=0.05)
    assert (found.hits, found.draws) == (19, 20)
    assert found.delta == clopper_pearson(19, 20, 0.05)[0]


def test_the_exact_delta_is_the_largest_over_half_spaces():
    for shift, noise, epsilon in ((1.0, 0.5, 1.0), (0.3, 1.0, 0.1), (4.0, 1.0, 2.0)):
        places = torch.linspace(-8, 12, 200_001, dtype=torch.float64)
        normal = torch.distributions.Normal(0.0, 1.0)
        tail_one = 1 - normal.cdf(places - shift / noise)
        tail_two = 1 - normal.cdf(places)
        largest = (tail_one - np.exp(epsilon) * tail_two).max().item()
        assert gaussian_delta(shift, noise, epsilon) == pytest.approx(largest, abs=1e-5)
    assert gaussian_delta(0.0, 1.0, 1.0) == 0.0


def test_an_audit_never_claims_more_than_the_truth():
    rng = np.random.default_rng(0)
    for shift in (0.0, 0.5, 1.0, 3.0):
        exact = gaussian_delta(shift, 1.0, epsilon=1.0)
        center = np.eye(5)[0] * shift
        found = [audit(center + rng.standard_normal((2000, 5)), rng.standard_normal((2000, 5)), 1.0, alpha=0.01) for _ in range(40)]
        assert max(found) <= exact
        if shift == 3.0:
            assert min(found) > 0.75 * exact
    # The other direction counts as well: unlearned weights that never come where the retrained ones often are.
    wide, narrow = rng.standard_normal((2000, 1)) * 3 + 3, np.full((2000, 1), 0.0)
    assert audit(narrow, wide, 1.0, 0.01) > 0.5


@pytest.mark.parametrize("orders", [("UA", "AU"), ("UAB", "AUB", "ABU")])
def test_newton_reaches_the_retrained_model_on_every_path(orders):
    setup = dataclasses.replace(SMALL, orders=orders)
    problem, ascent, starts = started(setup)
    retained = setup.retrained_order
    retrained = train(problem, retained, setup.mu)
    elsewhere = np.random.default_rng(1).standard_normal(retrained.shape) * 10
    for theta in [*starts, *(ascent.closed_form(start, 100) for start in starts), elsewhere]:
        removal = newton_removal(problem, retained, theta, setup.mu)
        np.testing.assert_allclose(removal.theta, retrained, rtol=1e-8, atol=1e-9)
        assert (removal.radius < 1e-7).all()
        assert (distance(problem, removal.theta, retrained) < 1e-16).all()
    # Local ascent does not, even at the best step of each path.
    for start in starts[:-1]:
        assert min(distance(problem, ascent.closed_form(start, step), retrained).mean() for step in range(200)) > 1e-4


def test_the_certified_radius_covers_what_is_left():
    setup = dataclasses.replace(SMALL, orders=("UAB", "ABU"))
    problem, _, starts = started(setup)
    retrained = train(problem, "AB", setup.mu)
    for share in (0.9, 0.5, 0.1):
        for start in starts:
            removal = newton_removal(problem, "AB", start, setup.mu, share=share)
            left = np.linalg.norm(removal.theta - retrained, axis=-1)
            assert (left > 1e-3).all()
            assert (removal.radius >= left).all()
    for bad, message in ((0.0, "share must be"), (1.1, "share must be")):
        with pytest.raises(ValueError, match=message):
            newton_removal(problem, "AB", starts[0], setup.mu, share=bad)
    with pytest.raises(ValueError, match="Without a retained stage"):
        newton_removal(problem, "", starts[0], setup.mu)


SIZES = ["--dimension", "30", "--rows", "8", "--forget_rows", "3", "--test_rows", "6", "--seeds", "4"]


def test_the_command_shows_and_writes_every_part(tmp_path, capsys):
    options = ["--orders", "[UAB, ABU]", "--extension_steps", "40", "--draws", "12", "--levels.releases", "200"]
    assert main(["theory", "--folder", str(tmp_path), *SIZES, *options]) == 0
    shown = capsys.readouterr().out
    for heading in ("the bound below it", "reaches the retrained model", "where it stops", "random draws prove"):
        assert heading in shown
    written = {path.name for path in tmp_path.iterdir()}
    tables = {f"{part}.{kind}" for part in ("theorem", "removal", "extensions", "certificates") for kind in ("csv", "md")}
    assert written == tables | {f"{name}.{kind}" for name in ("theorem", "extensions") for kind in ("svg", "png")} | {
        "theorem_curves.csv",
        "theory.json",
    }
    content = json.loads((tmp_path / "theory.json").read_text())
    assert content["setup"]["orders"] == ["UAB", "ABU"]
    assert len(content["theorem"]) == 4
    curves = list(csv.DictReader((tmp_path / "theorem_curves.csv").open()))
    held = [row for row in curves if row["log_bound"]]
    assert held
    assert all(np.log(float(row["distance"])) >= float(row["log_bound"]) for row in held)
    starts = [float(row["distance"]) for row in curves if row["step"] == "0"]
    assert starts == [row["distance_start"] for row in content["theorem"]]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--forget_rows", "300"], "forget_rows (k) is 300, more than dimension"),
        (["--eta", "0"], "eta must be greater than 0"),
        (["--steps", "200000"], "steps fit; take fewer, or a smaller eta"),
        (["--seeds", "0"], "seeds must be at least 1"),
        (["--levels.delta", "2", "--parts", "[certificates]", "--draws", "2"], "delta must lie between 0 and 1"),
    ],
)
def test_the_command_explains_bad_input(tmp_path, capsys, options, message):
    assert main(["theory", "--folder", str(tmp_path), *SIZES, "--parts", "[theorem]", *options]) == 2
    assert message in " ".join(capsys.readouterr().err.split())
    assert not list(tmp_path.iterdir())


def test_steps_before_t0_claim_nothing(tmp_path, capsys):
    assert main(["theory", "--folder", str(tmp_path), *SIZES, "--parts", "[theorem]", "--steps", "2"]) == 0
    assert "0 of 0" in capsys.readouterr().out
