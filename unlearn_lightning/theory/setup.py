"""What is drawn: dimensions, orders, and the distribution of the rows.

    draw(Setup(distribution="heavy_tailed", orders=("UAB", "AUB", "ABU")), seeds=range(10)).stages["A"].inputs     # (10, 40, 200)

A distribution of your own is a function of a generator and a shape, named by its path:

    def two_clusters(rng, shape):                          # in my_rows.py
        return rng.standard_normal(shape) / 20 + rng.choice([-0.05, 0.05], (shape[0], 1))

    unlearn theory --distribution my_rows.two_clusters
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import import_module
from itertools import combinations

import numpy as np

from unlearn_lightning.theory.linear import FORGET, Array, Problem, Rows

Distribution = Callable[[np.random.Generator, tuple[int, int]], Array]


def gaussian(rng: np.random.Generator, shape: tuple[int, int]) -> Array:
    """Draws independent normal entries."""
    return rng.standard_normal(shape) / math.sqrt(shape[1])


def uniform(rng: np.random.Generator, shape: tuple[int, int]) -> Array:
    """Draws independent entries, uniform around 0."""
    return rng.uniform(-math.sqrt(3 / shape[1]), math.sqrt(3 / shape[1]), shape)


def sphere(rng: np.random.Generator, shape: tuple[int, int]) -> Array:
    """Draws rows of length 1 in every direction alike."""
    rows = rng.standard_normal(shape)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def heavy_tailed(rng: np.random.Generator, shape: tuple[int, int]) -> Array:
    """Draws independent Student t entries with 3 degrees of freedom."""
    return rng.standard_t(3, shape) / math.sqrt(3 * shape[1])


def correlated(rng: np.random.Generator, shape: tuple[int, int]) -> Array:
    """Draws normal entries whose variance falls with the dimension's number i as 1/i: a few directions carry most of every row."""
    variances = 1 / np.arange(1, shape[1] + 1)
    return rng.standard_normal(shape) * np.sqrt(variances / variances.sum())


def shifted(rng: np.random.Generator, shape: tuple[int, int]) -> Array:
    """Draws normal entries around a mean of 1: all rows point somewhat the same way."""
    return (1 + rng.standard_normal(shape)) / math.sqrt(2 * shape[1])


DISTRIBUTIONS: tuple[Distribution, ...] = (gaussian, uniform, sphere, heavy_tailed, correlated, shifted)
"""The built-in ones; their rows have a mean squared length of 1."""


@dataclass(frozen=True)
class Setup:
    """The linear model's sizes and hyperparameters.

    Args:
        dimension: d, number of weights.
        rows: training rows of each retain stage.
        forget_rows: k, training rows of the forget stage U.
        test_rows: m, test inputs on which the distance is measured.
        mu: strength of each stage's pull to the weights of the stage before.
        eta: step size of unlearning.
        orders: two or more paths, each a text with one letter per stage; U is the forget stage. An order without U is a model that
            never saw it.
        retrained: the order of the retrained model; null for the first of `orders` without its U.
        noise: standard deviation of the labels' noise. The labels' signal has a variance of about 1 where rows have length 1.
        distribution: of all rows: gaussian, uniform, sphere, heavy_tailed, correlated, shifted, or the path of a function
            (generator, (rows, dimension)) -> array.
    """

    dimension: int = 200
    rows: int = 40
    forget_rows: int = 10
    test_rows: int = 50
    mu: float = 0.1
    eta: float = 0.1
    orders: tuple[str, ...] = ("UA", "AU")
    retrained: str | None = None
    noise: float = 0.1
    distribution: str = "gaussian"

    def __post_init__(self) -> None:
        sizes = {name: getattr(self, name) for name in ("dimension", "rows", "forget_rows", "test_rows")}
        for name, value in sizes.items():
            if value < 1:
                raise ValueError(f"{name} must be at least 1, got {value}.")
        for name in ("mu", "eta"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} must be greater than 0, got {getattr(self, name)}.")
        if self.forget_rows > self.dimension:
            raise ValueError(
                f"forget_rows (k) is {self.forget_rows}, more than dimension (d), {self.dimension}: X_U cannot have full row rank, and the "
                "theorem is about models with more weights than that. Lower forget_rows or raise dimension."
            )
        if self.test_rows < self.forget_rows:
            raise ValueError(
                f"test_rows (m) is {self.test_rows}, fewer than forget_rows (k), {self.forget_rows}: the bound needs m >= k, or directions "
                "that ascent moves would be invisible to the distance."
            )
        if self.noise < 0:
            raise ValueError(f"noise must not be negative, got {self.noise}.")
        if len(set(self.orders)) < 2:
            raise ValueError(f"orders must name at least two different paths, such as [UA, AU]; got {list(self.orders)}.")
        for order in (*self.orders, self.retrained_order):
            if not order or not order.isalpha() or len(set(order)) < len(order):
                raise ValueError(f"An order is one letter per stage, each once, such as UAB; got {order!r}.")
        if FORGET in self.retrained_order:
            raise ValueError(f"The retrained model must not see the forget stage U; got retrained={self.retrained!r}.")
        row_distribution(self.distribution)

    @property
    def retrained_order(self) -> str:
        """Names the retrained model's stages in order."""
        return self.retrained if self.retrained is not None else self.orders[0].replace(FORGET, "")

    @property
    def pairs(self) -> list[tuple[str, str]]:
        """Yields every two orders."""
        return list(combinations(dict.fromkeys(self.orders), 2))


def row_distribution(name: str) -> Distribution:
    """The distribution of a short name or of a function's path.

    Raises:
        ValueError: there is none of that name.
    """
    named = {function.__name__: function for function in DISTRIBUTIONS}
    if name in named:
        return named[name]
    module, _, function = name.rpartition(".")
    try:
        found: Distribution = getattr(import_module(module), function)
    except (ImportError, AttributeError, ValueError) as error:
        raise ValueError(
            f"There is no distribution {name!r}: choose one of {', '.join(named)}, or an importable module.function."
        ) from error
    return found


def draw(setup: Setup, seeds: Sequence[int]) -> Problem:
    """One problem for each seed, along the first axis. A seed's draw does not depend on the other seeds.

    All stages' labels follow one hidden theta with standard normal entries, plus noise: stages do not contradict each other.

    Raises:
        ValueError: a distribution of yours gives rows of another shape, or numbers that are not finite.
    """
    letters = sorted({letter for order in (*setup.orders, setup.retrained_order) for letter in order} | {FORGET})
    rows_of = row_distribution(setup.distribution)
    drawn: dict[str, list[tuple[Array, Array]]] = {letter: [] for letter in letters}
    tests = []
    for seed in seeds:
        truth = np.random.default_rng([seed, 0]).standard_normal(setup.dimension)
        for letter in letters:
            rng = np.random.default_rng([seed, 1 + ord(letter)])
            count = setup.forget_rows if letter == FORGET else setup.rows
            x = _checked(rows_of(rng, (count, setup.dimension)), (count, setup.dimension), setup.distribution)
            drawn[letter].append((x, x @ truth + setup.noise * rng.standard_normal(count)))
        shape = (setup.test_rows, setup.dimension)
        tests.append(_checked(rows_of(np.random.default_rng([seed, 1]), shape), shape, setup.distribution))
    stages = {letter: Rows(np.stack([x for x, _ in rows]), np.stack([y for _, y in rows])) for letter, rows in drawn.items()}
    return Problem(stages, np.stack(tests))


def _checked(rows: Array, shape: tuple[int, int], name: str) -> Array:
    rows = np.asarray(rows, dtype=np.float64)
    if rows.shape != shape or not np.isfinite(rows).all():
        what = f"an array of shape {rows.shape}" if rows.shape != shape else "numbers that are not finite"
        raise ValueError(f"The distribution {name} gave {what}; expected finite numbers of shape {shape}.")
    return rows
