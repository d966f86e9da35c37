"""The linear model: ridge, ascent, the weight gap, the bound on 200 random instances, and every degenerate case."""

import dataclasses
from itertools import islice

import numpy as np
import pytest

from unlearn_lightning.inference.divergence import squared_distance, squared_distances
from unlearn_lightning.theory import Ascent, Problem, Rows, Setup, distance, draw, lower_bound, ridge, train
from unlearn_lightning.theory.findings import measure
from unlearn_lightning.theory.setup import DISTRIBUTIONS

SMALL = Setup(dimension=24, rows=8, forget_rows=3, test_rows=6, eta=0.1)


def own_rows(rng, shape):
    """A distribution as a user would write it."""
    return rng.exponential(1.0, shape) / shape[1]


def started(setup, seeds=range(4)):
    problem = draw(setup, seeds)
    return problem, Ascent(problem.stages["U"], setup.eta), [train(problem, order, setup.mu) for order in setup.orders]


def matrices(problem, setup, seed):
    """M and P of one seed, as their definitions have them."""
    x = problem.stages["U"].inputs[seed]
    return 2 * setup.eta / len(x) * x.T @ x, x.T @ np.linalg.inv(x @ x.T) @ x


@pytest.mark.parametrize("rows", [5, 40])
def test_a_ridge_stage_is_its_formula(rows):
    rng = np.random.default_rng(0)
    x, y, before = rng.standard_normal((2, rows, 12)), rng.standard_normal((2, rows)), rng.standard_normal((2, 12))
    found = ridge(Rows(x, y), before, mu=0.3)
    for seed in range(2):
        formula = np.linalg.inv(x[seed].T @ x[seed] + 0.3 * np.eye(12)) @ (x[seed].T @ y[seed] + 0.3 * before[seed])
        np.testing.assert_allclose(found[seed], formula, rtol=1e-10)


def test_ridge_and_ascent_by_hand():
    # One weight, one row x = 2, y = 6: theta = (2*6 + 1*0) / (4 + 1); then theta + eta * 2 * 2 * (2 theta - 6).
    rows = Rows(np.array([[[2.0]]]), np.array([[6.0]]))
    theta = ridge(rows, np.zeros((1, 1)), mu=1.0)
    assert theta.item() == pytest.approx(2.4)
    assert next(islice(Ascent(rows, eta=0.1).recursion(theta), 1, None)).item() == pytest.approx(2.4 + 0.4 * (4.8 - 6))


def test_paths_are_stages_one_after_another():
    problem, _, (ua, au) = started(SMALL)
    u, a = problem.stages["U"], problem.stages["A"]
    zero = np.zeros_like(ua)
    np.testing.assert_array_equal(ua, ridge(a, ridge(u, zero, SMALL.mu), SMALL.mu))
    np.testing.assert_array_equal(au, ridge(u, ridge(a, zero, SMALL.mu), SMALL.mu))


@pytest.mark.parametrize("distribution", [d.__name__ for d in DISTRIBUTIONS] + ["test_theory.own_rows"])
def test_recursion_and_closed_form_agree(distribution):
    setup = dataclasses.replace(SMALL, distribution=distribution, eta=0.05)
    _, ascent, thetas = started(setup)
    for theta in thetas:
        walk = ascent.recursion(theta)
        for step in range(301):
            walked, jumped = next(walk), ascent.closed_form(theta, step)
            assert (np.linalg.norm(walked - jumped, axis=-1) <= 1e-8 * np.linalg.norm(walked, axis=-1)).all()


def test_lemma_3_2_the_weight_gap():
    """Delta_t = (I + M)^t Delta_0, with the gap from two recursions and the power from the definition of M."""
    problem, ascent, (one, other) = started(SMALL)
    steps = 120
    gap = [next(islice(ascent.recursion(theta), steps, None)) for theta in (one, other)]
    for seed in range(4):
        m, _ = matrices(problem, SMALL, seed)
        power = np.linalg.matrix_power(np.eye(24) + m, steps)
        np.testing.assert_allclose((gap[0] - gap[1])[seed], power @ (one - other)[seed], rtol=1e-8, atol=1e-10)
    np.testing.assert_allclose(ascent.gap(one - other, steps), gap[0] - gap[1], rtol=1e-8, atol=1e-10)


def test_the_constants_are_their_definitions():
    problem, ascent, (one, other) = started(SMALL)
    bound = lower_bound(ascent, problem.test, one - other)
    for seed in range(4):
        (m, p), test, gap = matrices(problem, SMALL, seed), problem.test[seed], (one - other)[seed]
        singular = np.linalg.svd(test @ p, compute_uv=False)
        sigma, inside = singular[singular > 1e-9].min(), np.linalg.norm(p @ gap)
        rho = (p @ gap) @ m @ (p @ gap) / inside**2
        outside = np.linalg.norm(test, 2) * np.linalg.norm(gap - p @ gap)
        t0 = max(0, np.ceil(np.log(2 * outside / (sigma * inside)) / np.log(1 + rho)))
        np.testing.assert_allclose([bound.rho[seed], bound.sigma[seed], bound.inside[seed]], [rho, sigma, inside])
        np.testing.assert_allclose([bound.outside[seed], bound.t0[seed]], [outside, t0])
        np.testing.assert_allclose(bound.distance(9)[seed], sigma**2 * inside**2 * (1 + rho) ** 18 / (4 * 6))
        # At the corollary's real-valued step the bound is four times the tolerance.
        t_star = (np.log(16 * 6 * 5.0) - np.log(sigma**2 * inside**2)) / (2 * np.log(1 + rho))
        np.testing.assert_allclose(bound.distance(t_star)[seed], 4 * 5.0)
        assert bound.violated_from(5.0)[seed] == max(np.ceil(t_star), t0)


INSTANCES = [
    Setup(dimension=60, rows=12, forget_rows=4, test_rows=10),
    Setup(dimension=60, rows=12, forget_rows=4, test_rows=4, orders=("UAB", "AUB", "ABU"), distribution="heavy_tailed"),
    Setup(dimension=30, rows=50, forget_rows=10, test_rows=40, mu=3.0, eta=0.5, distribution="correlated"),
    Setup(dimension=40, rows=5, forget_rows=8, test_rows=20, distribution="shifted"),
    Setup(dimension=20, rows=10, forget_rows=1, test_rows=5, mu=1e-3, noise=2.0, distribution="sphere"),
]


@pytest.mark.parametrize("setup", INSTANCES, ids=lambda setup: setup.distribution)
def test_the_bound_holds_from_t0_on(setup):
    """40 random instances of each of 5 setups: every step of the recursion from t0 on obeys the bound, and the corollary is true."""
    problem, ascent, thetas = started(setup, range(40))
    retrained = train(problem, setup.retrained_order, setup.mu)
    bound = lower_bound(ascent, problem.test, thetas[0] - thetas[1])
    tolerance = 0.01
    t_star = bound.violated_from(tolerance)
    held = np.zeros(40)
    for step, now in enumerate(islice(zip(*map(ascent.recursion, thetas), strict=True), int(t_star.max()) + 30)):
        measured = distance(problem, now[0], now[1])
        after = step >= bound.t0
        held += after
        assert (measured[after] >= bound.distance(step)[after] * (1 - 1e-9)).all()
        beyond = np.maximum(*(distance(problem, theta, retrained) for theta in now[:2])) > tolerance
        assert beyond[step >= t_star].all()
    assert (held >= 30).all()


def test_the_bound_is_reached_when_all_growth_is_equal_and_the_rest_cancels():
    """Orthonormal forget rows that the test inputs are, and a gap inside their span: the distance is exactly 4 times the bound."""
    eye = np.eye(6)[None, :3]
    ascent = Ascent(Rows(eye, np.zeros((1, 3))), eta=0.3)
    gap = np.array([[1.0, -2.0, 0.5, 0, 0, 0]])
    bound = lower_bound(ascent, eye, gap)
    assert bound.t0.item() == 0
    for step in (0, 1, 10):
        moved = ascent.gap(gap, step)
        assert distance(Problem({}, eye), moved, np.zeros((1, 6))).item() == pytest.approx(4 * bound.distance(step).item())


def test_the_distance_is_definition_2_1():
    problem, _, (one, other) = started(SMALL)
    for seed in range(4):
        a, b = ({str(i): [value] for i, value in enumerate(problem.test[seed] @ theta[seed])} for theta in (one, other))
        assert distance(problem, one, other)[seed] == pytest.approx(squared_distance(a, b))
    assert squared_distances(np.array([[1.0, 2.0], [0.0, 0.0]]), np.zeros((2, 2))) == 2.5


def test_a_seed_is_drawn_alike_whatever_the_others():
    one, many = draw(SMALL, [7]), draw(SMALL, [3, 7])
    np.testing.assert_array_equal(one.test[0], many.test[1])
    np.testing.assert_array_equal(one.stages["U"].inputs[0], many.stages["U"].inputs[1])
    assert not np.array_equal(many.test[0], many.test[1])


def test_any_orders_are_compared_pair_by_pair():
    found = measure(dataclasses.replace(SMALL, orders=("UAB", "AUB", "ABU", "AB")), range(3), tolerance=0.01)
    assert [pair.orders for pair in found.pairs][:3] == [("UAB", "AUB"), ("UAB", "ABU"), ("UAB", "AB")]
    assert len(found.pairs) == 6
    np.testing.assert_array_equal(found.to_retrained["AB"][0], 0)  # the retrained model's own order
    assert all((pair.margin() >= 1).all() for pair in found.pairs)
    assert found.disagreement < 1e-8
    assert all(hits == claims > 0 for hits, claims in map(found.corollary_holds, found.pairs))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"forget_rows": 25}, r"forget_rows \(k\) is 25, more than dimension \(d\), 24"),
        ({"test_rows": 2}, r"test_rows \(m\) is 2, fewer than forget_rows \(k\), 3"),
        ({"eta": 0.0}, "eta must be greater than 0, got 0.0"),
        ({"eta": float("nan")}, "eta must be greater than 0, got nan"),
        ({"mu": -1.0}, "mu must be greater than 0"),
        ({"rows": 0}, "rows must be at least 1"),
        ({"noise": -0.1}, "noise must not be negative"),
        ({"orders": ("UA", "UA")}, "at least two different paths"),
        ({"orders": ("UA", "AUA")}, "one letter per stage, each once"),
        ({"orders": ("U", "UA")}, "one letter per stage"),
        ({"retrained": "AU"}, "must not see the forget stage"),
        ({"distribution": "gausian"}, "no distribution 'gausian': choose one of gaussian, uniform"),
        ({"distribution": "test_theory.nothing"}, "no distribution 'test_theory.nothing'"),
    ],
)
def test_degenerate_settings_are_explained(change, message):
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(SMALL, **change)


def test_degenerate_problems_are_explained():
    problem, ascent, (one, other) = started(SMALL)
    forget = problem.stages["U"]
    repeated = forget.inputs.copy()
    repeated[2, 1] = repeated[2, 0]
    with pytest.raises(ValueError, match=r"lacks full row rank in 1 of 4 draws \(the first is number 2\)"):
        Ascent(Rows(repeated, forget.labels), 0.1)
    with pytest.raises(ValueError, match="k = 3 rows in d = 2 dimensions"):
        Ascent(Rows(forget.inputs[:, :, :2], forget.labels), 0.1)
    with pytest.raises(ValueError, match="eta must be greater than 0"):
        Ascent(forget, -0.1)
    with pytest.raises(ValueError, match="mu must be greater than 0"):
        train(problem, "UA", 0.0)
    with pytest.raises(ValueError, match="m = 2 test rows for k = 3"):
        lower_bound(ascent, problem.test[:, :2], one - other)
    with pytest.raises(ValueError, match="X_test P has rank below k"):
        lower_bound(ascent, np.repeat(problem.test[:, :1], 5, axis=1), one - other)
    unseen = (one - other) - np.stack([p @ g for p, g in zip((matrices(problem, SMALL, s)[1] for s in range(4)), one - other, strict=True)])
    with pytest.raises(ValueError, match="nothing to bound"):
        lower_bound(ascent, problem.test, unseen)
    with pytest.raises(ValueError, match="tolerance must be greater than 0"):
        lower_bound(ascent, problem.test, one - other).violated_from(0.0)
    with pytest.raises(OverflowError, match=r"At most \d+ steps fit"):
        ascent.closed_form(one, 100_000)


def square(rng, shape):
    """Not the asked shape."""
    return rng.standard_normal((shape[0], shape[0]))


def constant(rng, shape):
    """All rows alike: X_U has rank 1."""
    return np.ones(shape)


def test_unfit_distributions_are_explained():
    with pytest.raises(ValueError, match=r"test_theory.square gave an array of shape \(8, 8\)"):
        draw(dataclasses.replace(SMALL, distribution="test_theory.square"), [0])
    with pytest.raises(ValueError, match="lacks full row rank in 2 of 2 draws"):
        measure(dataclasses.replace(SMALL, distribution="test_theory.constant"), [0, 1], 0.01)
