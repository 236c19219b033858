"""Direction and its vector-Jacobian product."""

import re

import numpy as np
import pytest

from vq_reference import cosine
from vq_reference.testing.laws.assertions import assert_within
from vq_reference.testing.laws.bounds import bounds_state
from vq_reference.testing.laws.bounds.bounds import gamma

U = 2.0**-53
DIM = 5


@pytest.fixture
def x():
    return np.random.default_rng(0).normal(size=(20, DIM))


def test_a_direction_has_length_one(x):
    length = np.linalg.norm(cosine.unit(x), axis=1)
    assert_within("length", length, 1.0, bounds_state.unit(DIM, U) + gamma(DIM + 1, U))


@pytest.mark.parametrize("exponent", [-1073, -400, 400, 1012])
def test_a_power_of_two_leaves_the_direction_alone(x, exponent):
    x = np.round(x * 2**10)
    x[0, 0] = 2**12 - 1  # as long as there is room for at 2^1012
    small = np.ldexp(x, exponent)
    assert np.array_equal(cosine.unit(small), cosine.unit(x))


def test_the_gradient_is_that_of_central_differences(x):
    """A central difference is off by h²/6 times the third derivative, and by u/h.

    1/‖x + tv‖ is a series of Legendre polynomials, at most 1 each: its n-th derivative is at most n!(‖v‖/‖x‖)^n/‖x‖,
    and that of (x + tv)/‖x + tv‖ for n = 3 at most (3! + 3·2!)(‖v‖/‖x‖)³.
    """
    rng = np.random.default_rng(1)
    v, g = rng.normal(size=x.shape), rng.normal(size=x.shape)
    step = 2.0**-18
    difference = (cosine.unit(x + step * v) - cosine.unit(x - step * v)) / (2 * step)
    expected = np.sum(g * difference, axis=1)
    actual = np.sum(v * cosine.unit_vjp(x, g), axis=1)
    length, v_length, g_length = (np.linalg.norm(a, axis=1) for a in (x, v, g))
    closest = length - step * v_length
    truncation = step**2 / 6 * 12 * (v_length / closest) ** 3 * g_length
    # rounding: two directions, and x ± hv itself, whose rounding turns the direction by u/2
    rounding = (2 * bounds_state.unit(DIM, U) + 2 * U) / (2 * step) * g_length
    formula = gamma(4 * DIM + 20, U) * v_length * g_length / length
    assert_within("v'J'g", actual, expected, truncation + rounding + formula)


def test_a_zero_vector_has_no_direction_and_hands_its_gradient_on():
    zero, g = np.zeros((1, DIM)), np.arange(1.0, DIM + 1)[None]
    assert np.array_equal(cosine.unit(zero), zero)
    assert np.array_equal(cosine.unit_vjp(zero, g), g)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda x: cosine.unit(x[0]), "x has shape (5,): expected (N, D) with D of at least 1"),
        (lambda x: cosine.unit_vjp(x[0], x), "x has shape (5,): expected (N, D) with D of at least 1"),
        (lambda x: cosine.unit_vjp(x, x[:1]), "g has shape (1, 5): expected (20, 5)"),
        (lambda x: cosine.unit_vjp(x, x * np.nan), "g[0, 0] is nan: expected finite entries"),
    ],
)
def test_an_argument_without_a_direction_is_named(x, call, message):
    with pytest.raises(ValueError, match="^" + re.escape(message)):
        call(x)
