"""The oracle's diversity against its formula and derivative in 50 digits, and at its extremes."""

import re

import mpmath
import numpy as np
import pytest

from vq_reference import diversity
from vq_reference.testing.laws.assertions import assert_within
from vq_reference.testing.laws.bounds import bounds_auxiliary

U = 2.0**-53
X, CODES = (np.random.default_rng(seed).standard_normal(shape) for seed, shape in enumerate([(3, 2), (4, 2)]))
TEMPERATURES = [0.0, 0.5, 3.0]


def formula(x, codes, temperature):
    """Return Σ p̄ log p̄ for lists of rows of mpf."""
    mean = [mpmath.mpf(0)] * len(codes)
    for token in x:
        shares = [mpmath.exp(-temperature * mpmath.norm([a - b for a, b in zip(token, e, strict=True)])) for e in codes]
        mean = [m + share / mpmath.fsum(shares) / len(x) for m, share in zip(mean, shares, strict=True)]
    return mpmath.fsum(p * mpmath.log(p) for p in mean)


def derivative(values, other, function):
    """Return the derivative in each entry of `values`, by central differences in 50 digits."""
    rows = [[mpmath.mpf(float(entry)) for entry in row] for row in values]
    others = [[mpmath.mpf(float(entry)) for entry in row] for row in other]
    found = np.zeros(values.shape)
    for place in np.ndindex(values.shape):

        def moved(t, place=place):
            changed = [list(row) for row in rows]
            changed[place[0]][place[1]] += t
            return function(changed, others)

        found[place] = float(mpmath.diff(moved, 0))
    return found


@pytest.mark.parametrize("temperature", TEMPERATURES)
def test_value_and_gradients_are_those_of_the_formula(temperature):
    bound = bounds_auxiliary.diversity(X, CODES, temperature, U)
    at_x, at_codes = diversity.vjp(X, CODES, temperature, g=1.0)
    with mpmath.workdps(50):
        value = float(formula(*([list(map(mpmath.mpf, row)) for row in v.tolist()] for v in (X, CODES)), temperature))
        from_x = derivative(X, CODES, lambda x, codes: formula(x, codes, temperature))
        from_codes = derivative(CODES, X, lambda codes, x: formula(x, codes, temperature))
    assert_within("ℓ", diversity.diversity(X, CODES, temperature), value, bound.value)
    assert_within("∂ℓ/∂x", at_x, from_x, bound.x)
    assert_within("∂ℓ/∂codes", at_codes, from_codes, bound.codes)


def test_the_gradient_is_linear_in_where_it_begins():
    for one, twice in zip(diversity.vjp(X, CODES, 1.0), diversity.vjp(X, CODES, 1.0, g=-2.0), strict=True):
        np.testing.assert_array_equal(twice, -2 * one)


def test_a_sharp_choice_is_zero_on_one_code_and_minus_log_k_on_all_of_them():
    codes = np.array([[0.0], [4.0], [8.0]])
    assert diversity.diversity(codes[[1, 1]], codes, 1e6) == 0.0
    assert_within("ℓ", diversity.diversity(codes, codes, 1e6), -np.log(3), bounds_auxiliary.sharp_diversity(3, 3, 3, U))


def test_a_token_on_a_code_and_a_share_that_underflows_leave_the_gradient_finite():
    codes = np.array([[0.0], [4.0], [8.0]])
    for gradient in diversity.vjp(codes[[1, 1]], codes, 1e6):
        np.testing.assert_array_equal(gradient, np.zeros_like(gradient))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((X[:0], CODES, 1.0), "x has shape (0, 2): expected at least one token"),
        ((X, CODES[:0], 1.0), "codebook has shape (0, 2): expected at least one code"),
        ((X, CODES[:, :1], 1.0), "x has shape (3, 2): expected (N, 1)"),
        ((X, CODES, -1.0), "temperature is -1.0: expected a finite number of at least 0"),
    ],
)
def test_an_argument_that_cannot_be_used_is_named(arguments, message):
    for function in (diversity.diversity, diversity.vjp):
        with pytest.raises(ValueError, match=re.escape(message)):
            function(*arguments)
