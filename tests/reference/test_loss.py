"""The oracle's commitment loss against its formula in 50 digits, over the whole range of float64."""

import itertools
import re

import mpmath
import numpy as np
import pytest

from vq_reference import loss
from vq_reference.testing.laws.assertions import assert_within
from vq_reference.testing.laws.bounds import bounds

FLOAT64 = np.finfo(np.float64)
U = FLOAT64.eps / 2
SHAPES = [(1, 1), (3, 5), (17, 4)]
WEIGHTS = [(0.25, 1.0), (0.0, 1.0), (2.0, 0.75), (0.25, 1000.0), (0.5, 0.0)]
# powers of two that x and q are scaled by: squares in range, subnormal, 0 and beyond the range; and x, q subnormal
EXPONENTS = [0, -20, 500, 511, -520, -535, -600, -1070]


@pytest.fixture(autouse=True)
def _fifty_digits():
    with mpmath.workdps(50):
        yield


def pair(shape, exponent):
    generator = np.random.default_rng(shape)
    return tuple(np.ldexp(generator.standard_normal(shape), exponent) for _ in range(2))


def exact(x, q, beta, weight):
    """Return ℓ and its gradients at x and at q, (N, D) of mpf, in 50 digits."""
    numbers = np.vectorize(lambda v: mpmath.mpf(float(v)), otypes=[object])
    difference, beta, weight = numbers(x) - numbers(q), mpmath.mpf(float(beta)), mpmath.mpf(float(weight))
    value = weight * (1 + beta) * np.sum(difference**2) / difference.size
    return value, 2 * weight * beta * difference / difference.size, -2 * weight * difference / difference.size


@pytest.mark.parametrize("exponent", EXPONENTS)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_the_value_is_the_formula(shape, exponent):
    x, q = pair(shape, exponent)
    for beta, weight in WEIGHTS:
        expected, _, _ = exact(x, q, beta, weight)
        # below the normal range each of four products is off by half of the smallest number, times what follows it
        subnormal = FLOAT64.smallest_subnormal * (weight * (1 + beta) + 1)
        actual = loss.commitment_loss(x, q, beta, weight)
        if expected > FLOAT64.max:
            assert actual == np.inf
            continue
        error = float(mpmath.mpf(actual) - expected)
        assert_within("ℓ", error, 0.0, bounds.mean_square(x.size, U) * float(expected) + subnormal)


@pytest.mark.parametrize("exponent", EXPONENTS)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_each_half_trains_its_own_side(shape, exponent):
    x, q = pair(shape, exponent)
    for (beta, weight), g in itertools.product(WEIGHTS, (1.0, -3.0)):
        _, *expected = exact(x, q, beta, weight)
        for name, actual, wanted in zip("xq", loss.vjp(x, q, g, beta, weight), expected, strict=True):
            wanted = g * wanted
            error = (actual - wanted).astype(np.float64)
            bound = bounds.loss_gradient(wanted.astype(np.float64), U) + FLOAT64.smallest_subnormal
            assert_within(f"∂(gℓ)/∂{name}", error, 0.0, bound)


def test_without_tokens_the_loss_is_zero_and_its_gradients_are_empty():
    nothing = np.empty((0, 4))
    assert loss.commitment_loss(nothing, nothing) == 0.0
    assert [gradient.shape for gradient in loss.vjp(nothing, nothing)] == [(0, 4), (0, 4)]


def test_a_mean_square_beyond_float64_is_an_infinite_loss():
    x = np.array([[1e200, 1.0]])
    assert loss.commitment_loss(x, -x) == np.inf
    assert loss.commitment_loss(np.full((1, 2), FLOAT64.max), np.full((1, 2), -FLOAT64.max)) == np.inf


@pytest.mark.parametrize(("beta", "weight"), [(0.0, 1.0), (0.25, 0.0)])
def test_a_weight_of_zero_never_makes_the_loss_nan(beta, weight):
    x = np.array([[1e200, 1.0]])
    assert loss.commitment_loss(x, -x, beta, weight) in (0.0, np.inf)


def test_what_underflows_is_nothing_to_complain_of():
    x, tiny = np.array([[1.0, 1e-300]]), FLOAT64.smallest_subnormal
    with np.errstate(all="raise"):
        assert loss.commitment_loss(x, np.zeros((1, 2)), 0.0) == 0.5
        assert loss.commitment_loss(np.array([[tiny]]), np.array([[0.0]])) == 0.0


def test_beta_is_a_quarter_and_the_weights_are_one_unless_said():
    x, q = np.array([[2.0]]), np.array([[-1.0]])
    assert loss.commitment_loss(x, q) == 9 + 9 / 4
    assert loss.vjp(x, q) == (6 / 4, -6)


X = np.ones((2, 3))


@pytest.mark.parametrize("function", [loss.commitment_loss, loss.vjp])
@pytest.mark.parametrize(
    ("arguments", "options", "error", "message"),
    [
        ((X, X[:, :2]), {}, ValueError, "q has shape (2, 2): expected (2, 3)"),
        ((X[0], X), {}, ValueError, "x has shape (3,): expected (N, D) with D of at least 1"),
        ((X.astype(int), X), {}, TypeError, "x has dtype int64: expected a real floating dtype"),
        ((X, X * np.nan), {}, ValueError, "q[0, 0] is nan: expected finite entries"),
        ((X, X), {"beta": -0.25}, ValueError, "beta is -0.25: expected a finite number of at least 0"),
        ((X, X), {"beta": np.nan}, ValueError, "beta is nan: expected a finite number of at least 0"),
        ((X, X), {"commitment_weight": np.inf}, ValueError, "commitment_weight is inf: expected a finite number"),
    ],
)
def test_an_argument_that_has_no_loss_is_named(function, arguments, options, error, message):
    with pytest.raises(error, match=re.escape(message)):
        function(*arguments, **options)


@pytest.mark.parametrize("function", [loss.commitment_loss, loss.vjp])
def test_another_number_of_codes_than_tokens_is_refused(function):
    with pytest.raises(ValueError, match="q has shape"):
        function(X, X[:1])
