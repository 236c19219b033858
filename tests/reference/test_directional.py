"""The oracle's directional reparameterization against derivatives of the declared function in 50 digits."""

import re

import mpmath
import numpy as np
import pytest

from vq_reference import directional
from vq_reference.testing.laws.assertions import assert_within
from vq_reference.testing.laws.bounds import bounds_auxiliary

U = 2.0**-53
SHAPE = (6, 3)


def numbers(seed):
    """Draw multiples of 1/16: their sums and differences are exact, so that noise cancels nothing."""
    return np.random.default_rng(seed).integers(-64, 65, SHAPE) / 16


X, Q, NOISE, G = (numbers(seed) for seed in range(4))
NOTHING = np.zeros(SHAPE)


def exact(v):
    return mpmath.matrix([mpmath.mpf(float(entry)) for entry in v])


def declared(x, q, direction):
    """Return x + ‖q − x‖·n of one token, (D,), for a direction n that is a constant."""
    return x + mpmath.norm(q - x) * direction


def derivatives(function, at):
    """Return the derivative in each entry: a central difference in 50 digits, far beyond float64."""
    axes = [mpmath.matrix([int(i == j) for i in range(len(at))]) for j in range(len(at))]
    return [float(mpmath.diff(lambda t, axis=axis: function(at + t * axis), 0)) for axis in axes]


@pytest.mark.parametrize("noise", [NOISE, NOTHING], ids=["noise", "no noise"])
def test_output_and_gradients_are_those_of_the_function_in_which_the_direction_is_a_constant(noise):
    output, (at_x, at_q) = directional.output(X, Q, noise), directional.vjp(X, Q, noise, G)
    bound = bounds_auxiliary.directional_gradient(G, U)
    with mpmath.workdps(50):
        for n in range(len(X)):
            x, q, v, g = (exact(values[n]) for values in (X, Q, noise, G))
            direction = (q - x + v) / mpmath.norm(q - x + v)
            expected = np.array([float(entry) for entry in declared(x, q, direction)])
            limit = bounds_auxiliary.directional_output(X[n][None], expected[None], U)[0]
            assert_within("output", output[n], expected, limit)
            from_x = derivatives(lambda x: mpmath.fdot(g, declared(x, q, direction)), x)  # noqa: B023
            from_q = derivatives(lambda q: mpmath.fdot(g, declared(x, q, direction)), q)  # noqa: B023
            assert_within("gradient at x", at_x[n], np.array(from_x), bound[n])
            assert_within("gradient at q", at_q[n], np.array(from_q), bound[n])


def test_without_noise_the_output_is_the_code_and_what_lies_across_reaches_the_input():
    assert_within("output", directional.output(X, Q, NOTHING), Q, bounds_auxiliary.directional_output(X, Q, U))
    at_x, at_q = directional.vjp(X, Q, NOTHING, Q - X)
    bound = bounds_auxiliary.directional_gradient(Q - X, U)
    assert_within("gradient at x", at_x, 0.0, bound)
    assert_within("gradient at q", at_q, Q - X, bound)


def test_a_token_on_its_code_gets_the_whole_gradient():
    at_x, at_q = directional.vjp(Q, Q, NOISE, G)
    np.testing.assert_array_equal(at_x, G)
    np.testing.assert_array_equal(at_q, NOTHING)
    np.testing.assert_array_equal(directional.output(Q, Q, NOISE), Q)


def test_noise_that_undoes_the_way_leaves_the_token_where_it_is():
    np.testing.assert_array_equal(directional.output(X, Q, X - Q), X)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((X, Q[:1], NOISE, G), "q has shape (1, 3): expected (6, 3)"),
        ((X, Q, NOISE[:, :2], G), "noise has shape (6, 2): expected (6, 3)"),
        ((X, Q, NOISE, G[:2]), "g has shape (2, 3): expected (6, 3)"),
        ((X * np.nan, Q, NOISE, G), "x[0, 0] is nan: expected finite entries"),
    ],
)
def test_an_argument_that_cannot_be_used_is_named(arguments, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        directional.vjp(*arguments)
