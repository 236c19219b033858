"""The oracle's estimators: one value, three gradients."""

import re

import numpy as np
import pytest

from vq_reference import directional, estimators, rotation
from vq_reference.estimators import ESTIMATORS

X, Q, G = (np.random.default_rng(seed).standard_normal((4, 3)) for seed in range(3))


def test_the_output_is_the_code_bit_for_bit():
    q = np.array([[-0.0, 5e-324, 1.0], [0.0, -1e308, 3.0]])
    for x in (np.zeros((2, 3)), np.full((2, 3), -1e308)):
        np.testing.assert_array_equal(estimators.output(x, q).view(np.uint64), q.view(np.uint64))


def test_straight_through_hands_the_gradient_to_the_input():
    at_x, at_q = estimators.vjp(X, Q, G, "straight_through")
    np.testing.assert_array_equal(at_x, G)
    np.testing.assert_array_equal(at_q, np.zeros_like(G))


def test_the_rotation_hands_the_turned_gradient_to_the_input():
    at_x, at_q = estimators.vjp(X, Q, G, "rotation")
    np.testing.assert_array_equal(at_x, rotation.ratio(X, Q) * rotation.rotate_back(X, Q, G))
    np.testing.assert_array_equal(at_q, np.zeros_like(G))


def test_directional_reparameterization_divides_the_gradient_without_noise():
    expected = directional.vjp(X, Q, np.zeros_like(X), G)
    np.testing.assert_array_equal(estimators.vjp(X, Q, G, "directional"), expected)


def test_without_an_estimator_the_gradient_reaches_the_code_and_not_the_input():
    at_x, at_q = estimators.vjp(X, Q, G, "none")
    np.testing.assert_array_equal(at_x, np.zeros_like(G))
    np.testing.assert_array_equal(at_q, G)


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_no_tokens_give_no_gradients(estimator):
    nothing = np.empty((0, 3))
    assert [gradient.shape for gradient in estimators.vjp(nothing, nothing, nothing, estimator)] == [(0, 3), (0, 3)]


def test_an_unknown_estimator_is_named_with_those_there_are():
    message = "estimator is 'gumbel': expected one of straight_through, rotation, directional, none"
    with pytest.raises(ValueError, match=re.escape(message)):
        estimators.vjp(X, Q, G, "gumbel")


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: estimators.output(X * np.nan, Q), ValueError, "x[0, 0] is nan: expected finite entries"),
        (lambda: estimators.output(X, Q[:, :2]), ValueError, "q has shape (4, 2): expected (4, 3)"),
        (lambda: estimators.vjp(X * np.nan, Q, G, "none"), ValueError, "x[0, 0] is nan: expected finite entries"),
        (lambda: estimators.vjp(X, Q, G[:, :2], "none"), ValueError, "g has shape (4, 2): expected (4, 3)"),
        (lambda: estimators.vjp(X, Q, G * np.nan, "none"), ValueError, "g[0, 0] is nan: expected finite entries"),
        (lambda: estimators.vjp(X, Q * np.inf, G, "rotation"), ValueError, "q[0, 0] is "),
    ],
)
def test_an_argument_that_cannot_be_used_is_named(call, error, message):
    with pytest.raises(error, match="^" + re.escape(message)):
        call()


@pytest.mark.parametrize("estimator", ["straight_through", "none"])
@pytest.mark.parametrize("q", [Q * np.nan, Q.astype(int)], ids=["NaN", "integers"])
def test_every_estimator_refuses_the_same_codes(estimator, q):
    with pytest.raises((ValueError, TypeError), match=r"^q"):
        estimators.vjp(X, q, G, estimator)


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_another_number_of_codes_than_tokens_is_refused(estimator):
    with pytest.raises(ValueError, match="q has shape"):
        estimators.vjp(X, Q[:1], G, estimator)
