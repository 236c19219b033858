"""The effective codebook and its gradient, against exact arithmetic and 50 digits."""

import re
from fractions import Fraction
from itertools import pairwise

import mpmath
import numpy as np
import pytest

from vq_reference import codebook
from vq_reference.codebook import Layer
from vq_reference.testing.laws.assertions import assert_within
from vq_reference.testing.laws.bounds import bounds

U = np.finfo(np.float64).eps / 2
WIDTHS = [(3, 2), (2, 5, 3), (4, 3, 5, 2), (1, 1, 1, 1, 1)]


def transform_of(draw, widths, bias=True):
    return tuple(Layer(draw(o, i), draw(o) if bias else None) for i, o in pairwise(widths))


def exact(frozen, transform, number):
    """Return what enters each layer and what leaves the last, in the arithmetic of `number`, as object arrays."""
    numbers = np.vectorize(number, otypes=[object])
    states = [numbers(frozen)]
    for i, layer in enumerate(transform):
        leaving = states[-1] @ numbers(layer.weight).T + (0 if layer.bias is None else numbers(layer.bias))
        states.append(leaving if i == len(transform) - 1 else np.where(leaving > 0, leaving, 0 * leaving))
    return states


def exact_vjp(frozen, transform, g):
    """Return ∂⟨g, E⟩ at each weight and bias as Fractions, entry by entry from the definition and not layer by layer.

    E is affine in any one parameter as long as no ReLU switches, so that its slope is a difference of two values.
    """
    numbers = np.vectorize(Fraction, otypes=[object])
    base = exact(frozen, transform, Fraction)
    step = Fraction(1, 2**60)

    def slope(i, kind, entry):
        moved = [{"weight": numbers(x.weight), "bias": None if x.bias is None else numbers(x.bias)} for x in transform]
        moved[i][kind][entry] += step
        states = exact(frozen, [Layer(**m) for m in moved], lambda v: v if isinstance(v, Fraction) else Fraction(v))
        switched = [np.any((a > 0) != (b > 0)) for a, b in zip(base[1:-1], states[1:-1], strict=True)]
        assert not any(switched)
        return np.sum(numbers(g) * (states[-1] - base[-1])) / step

    return [
        {
            kind: np.array([slope(i, kind, e) for e in np.ndindex(value.shape)], float).reshape(value.shape)
            for kind, value in (("weight", layer.weight), ("bias", layer.bias))
            if value is not None
        }
        for i, layer in enumerate(transform)
    ]


@pytest.mark.parametrize("widths", WIDTHS, ids=str)
@pytest.mark.parametrize("bias", [True, False], ids=["bias", "no bias"])
def test_the_codes_are_the_frozen_ones_seen_through_every_layer(widths, bias):
    generator = np.random.default_rng(widths)
    transform = transform_of(lambda *shape: generator.standard_normal(shape), widths, bias)
    frozen = generator.standard_normal((6, widths[0]))
    with mpmath.workdps(50):
        expected = exact(frozen, transform, lambda v: mpmath.mpf(float(v)))[-1]
        error = (codebook.effective_codebook(frozen, transform) - expected).astype(float)
    # A ReLU enlarges no error. So a layer's is what entered it, carried by |W|, and γ of a sum of F products and a
    # bias, of absolute values: every layer multiplies (1 + γ) onto the sum that has absolute values for everything.
    size, growth = np.abs(frozen), 1.0
    for layer in transform:
        size = size @ np.abs(layer.weight).T + (0 if layer.bias is None else np.abs(layer.bias))
        growth *= 1 + bounds.gamma(layer.weight.shape[1] + 1, U)
    assert_within("E", error, 0.0, (growth - 1) * size)


@pytest.mark.parametrize("widths", WIDTHS, ids=str)
@pytest.mark.parametrize("bias", [True, False], ids=["bias", "no bias"])
def test_the_gradient_reaches_every_parameter_exactly(widths, bias):
    generator = np.random.default_rng(widths)
    # Float64 rounds nothing in numbers as short as these. What a bias has after its quarters, or the lack of negative
    # numbers where there is none, keeps every ReLU off its kink.
    quarters = lambda *shape: generator.integers(-6, 7, shape) / 4  # noqa: E731
    transform = transform_of(quarters, widths, bias)
    frozen, g = quarters(5, widths[0]) + 0.125, quarters(5, widths[-1])
    if bias:
        transform = tuple(Layer(x.weight, x.bias + 2.0 ** -(8 + 4 * i)) for i, x in enumerate(transform))
    else:
        frozen, transform = np.abs(frozen), tuple(Layer(np.abs(x.weight) + 0.25) for x in transform)
    expected = exact_vjp(frozen, transform, g)
    for found, wanted in zip(codebook.vjp(frozen, transform, g), expected, strict=True):
        np.testing.assert_array_equal(found.weight, wanted["weight"])
        if bias:
            np.testing.assert_array_equal(found.bias, wanted["bias"])
        else:
            assert found.bias is None


def test_a_relu_at_zero_passes_no_gradient():
    transform = (Layer(np.array([[1.0]]), np.array([-1.0])), Layer(np.array([[3.0]])))
    first, _ = codebook.vjp(np.array([[1.0]]), transform, np.array([[1.0]]))
    np.testing.assert_array_equal(first.weight, [[0.0]])
    np.testing.assert_array_equal(first.bias, [0.0])


C, W = np.ones((4, 3)), np.ones((2, 3))


@pytest.mark.parametrize(
    ("frozen", "transform", "error", "message"),
    [
        (C, (), ValueError, "transform has no layers: expected at least one"),
        (C[:0], (Layer(W),), ValueError, "frozen_codebook has shape (0, 3): expected at least one code"),
        (C.astype(int), (Layer(W),), TypeError, "frozen_codebook has dtype int64: expected a real floating dtype"),
        (C * np.nan, (Layer(W),), ValueError, "frozen_codebook[0, 0] is nan: expected finite entries"),
        (C, (Layer(W.T),), ValueError, "transform[0].weight has shape (3, 2): expected (N, 3)"),
        (C, (Layer(W), Layer(W)), ValueError, "transform[1].weight has shape (2, 3): expected (N, 2)"),
        (C, (Layer(W[0]),), ValueError, "transform[0].weight has shape (3,): expected (N, 3)"),
    ],
)
def test_a_transform_that_does_not_fit_is_named_by_its_layer(frozen, transform, error, message):
    with pytest.raises(error, match="^" + re.escape(message)):
        codebook.effective_codebook(frozen, transform)


def test_a_gradient_of_another_width_than_the_codes_is_refused():
    with pytest.raises(ValueError, match=re.escape("g has shape (4, 3): expected (N, 2)")):
        codebook.vjp(C, (Layer(W),), np.ones((4, 3)))


@pytest.mark.parametrize(
    ("layer", "error"),
    [
        (Layer(W * np.nan), ValueError),
        (Layer(W.astype(int)), TypeError),
        (Layer(W, np.full(2, np.inf)), ValueError),
        (Layer(W, np.ones(1)), ValueError),
        (Layer(W, np.ones((4, 2))), ValueError),
        (Layer(np.ones((0, 3))), ValueError),
    ],
    ids=["weight NaN", "weight integer", "bias infinite", "bias too short", "bias a matrix", "no outputs"],
)
def test_a_layer_of_bad_numbers_or_a_bias_that_does_not_fit_is_named(layer, error):
    with pytest.raises(error, match=r"transform\[0\]"):
        codebook.effective_codebook(C, (layer,))
