"""The bounds of a layer, stage by stage, in numbers worked out by hand from the derivations in their docstrings.

A rounding too many or too few shows in each.
"""

from dataclasses import replace

import numpy as np
import pytest
from by_hand import U, same

from vq_reference.codebook import Layer
from vq_reference.testing.laws.assertions import assert_within
from vq_reference.testing.laws.bounds import bounds_layer, bounds_state
from vq_reference.testing.laws.bounds.bounds import gamma
from vq_reference.testing.laws.bounds.bounds_layer import Heads
from vq_reference.vector_quantize import VectorQuantize

X = np.array([[1.0, -1.0, 2.0], [2.0, -2.0, 4.0]])
W_IN = np.array([[1.0, 0.0, 1.0], [0.0, 2.0, 0.0], [2.0, 0.0, 2.0], [3.0, -1.0, 1.0]])
W_OUT = np.array([[1.0, -2.0, 0.0, 0.0], [0.0, 0.0, 0.0, 0.5], [1.0, 1.0, 1.0, 1.0]])
CODES = np.array([[[0.0, 5.0], [4.0, 0.0]], [[-3.0, -4.0], [6.0, 0.0]]])
LAYER = VectorQuantize(
    CODES,
    heads=2,
    project_in=Layer(W_IN, np.array([0.0, 2.0, 0.0, 2.0])),
    project_out=Layer(W_OUT, np.array([1.0, 0.0, -1.0])),
    trained=True,
    beta=0.5,
    commitment_weight=3.0,
)
BARE = replace(LAYER, project_in=None, project_out=None)
COSINE = replace(LAYER, unit=True)
# one token, t − q = (3, 4) and (−1, 0), of lengths 5 and 1, off by 1/2 and 3/4
HEADS = Heads(
    hidden=np.array([[3.0, 4.0], [0.0, 2.0]]),
    off_hidden=np.array([[1 / 2], [1 / 4]]),
    tokens=np.array([[3.0, 4.0], [1.0, 0.0]]),
    off_tokens=np.array([[1 / 4], [1 / 2]]),
    codes=np.array([[0.0, 0.0], [2.0, 0.0]]),
    off_codes=1 / 4,
)
G_OUTPUT, G_LOSS = np.array([[1.0, -2.0, 4.0]]), -4.0
# two tokens: what reaches each of their heads, and what it is off by
AT_HIDDEN, OFF = np.array([[1.0, -2.0], [0.0, 3.0], [2.0, -2.0], [0.0, 0.0]]), np.array([[3.0], [4.0], [0.0], [5.0]])


def test_hidden_vectors_are_off_by_a_sum_of_products_and_a_bias():
    heads = bounds_layer.heads_of(LAYER, X, U)
    same(heads.hidden, np.array([[3.0, 0.0], [6.0, 8.0], [6.0, -2.0], [12.0, 14.0]]))
    # absolute values of all terms: (3, 4), (6, 8), (6, 6) and (12, 14)
    same(heads.off_hidden, gamma(4, U) * np.sqrt([[25.0], [100.0], [72.0], [340.0]]))
    assert heads.tokens is heads.hidden
    assert heads.off_tokens is heads.off_hidden
    same(heads.codes, np.array([[4.0, 0.0], [6.0, 0.0], [4.0, 0.0], [6.0, 0.0]]))
    assert heads.off_codes == 0.0
    heads = bounds_layer.heads_of(replace(LAYER, project_in=Layer(W_IN)), X[:1], U)
    same(heads.hidden, np.array([[3.0, -2.0], [6.0, 6.0]]))
    same(heads.off_hidden, gamma(4, U) * np.array([[np.hypot(3, 2)], [np.hypot(6, 6)]]))
    assert not bounds_layer.heads_of(replace(BARE, heads=1), X[:, :2], U).off_hidden.any()


def test_directions_are_off_by_twice_the_relative_error_and_a_rounding():
    heads, rounded = bounds_layer.heads_of(COSINE, X[:1], U), gamma(3, U) + U
    same(heads.tokens, np.array([[1.0, 0.0], [0.6, 0.8]]))
    same(heads.off_tokens, 2 * gamma(4, U) * np.array([[5 / 3], [10 / 10]]) + rounded)
    same(heads.codes, np.array([[1.0, 0.0], [1.0, 0.0]]))
    assert heads.off_codes == rounded == bounds_state.unit(2, U)
    same(heads.off, heads.off_tokens + rounded)


def test_a_shared_codebook_serves_every_head():
    heads = bounds_layer.heads_of(replace(LAYER, codes=CODES[1:]), X[:1], U)
    same(heads.codes, np.array([[6.0, 0.0], [6.0, 0.0]]))


def test_the_output_is_off_by_its_projection_and_by_the_codes():
    # |q||W_out|' + |b| = (1, 0, 3), sums of four products and a bias
    same(bounds_layer.output(LAYER, HEADS, U), gamma(5, U) * np.array([[1, 0, 3]]) + np.array([[3, 0.5, 4]]) / 4)
    same(bounds_layer.output(BARE, HEADS, U), np.full((1, 4), 1 / 4))


@pytest.mark.parametrize(("trained", "scale"), [(True, 3 * 1.5), (False, 3 * 0.5)])
def test_the_loss_is_off_by_its_squares_and_their_mean(trained, scale):
    squares = (2 * 5 * 1 / 2 + 1 / 4 + 2 * 1 * 3 / 4 + 9 / 16) / 4
    expected = scale * (squares + gamma(4 + 8, U) * (26 / 4 + squares))
    same(bounds_layer.value(replace(LAYER, trained=trained), HEADS, U), expected)


def test_the_gradient_at_the_hidden_vectors_is_off_by_its_sums_and_by_the_difference():
    g, off = bounds_layer.hidden_gradient(LAYER, HEADS, G_OUTPUT, G_LOSS, U)
    # g W_out = (5, 2, 4, 3), its absolute values (5, 6, 4, 5); s·d = −3(3, 4) and −3(−1, 0)
    same(g, np.array([[5.0 - 9, 2 - 12], [4 + 3, 3 + 0]]))
    absolute = np.array([[np.hypot(5 + 9, 6 + 12)], [np.hypot(4 + 3, 5 + 0)]])
    at_tokens = gamma(3 + 10, U) * absolute + 3 * HEADS.off
    same(off, at_tokens)

    turned, off = bounds_layer.hidden_gradient(COSINE, HEADS, G_OUTPUT, G_LOSS, U)
    # across (0.6, 0.8) and (0, 1), over 5 and 2
    assert_within("gradient", turned, np.array([[0.448, -0.336], [3.5, 0.0]]), gamma(50, 2.0**-53) * 10)
    turn = np.array([[4 / 4 + 2 / 10], [4 / 2 + 2 / 8]]) + 2 * gamma(8, U)
    same(off, (at_tokens + turn * np.hypot(*g.T)[:, None]) / np.array([[5], [2]]))


def test_without_a_projection_the_outputs_gradient_arrives_as_it_is():
    g_output = np.array([[1.0, -2.0, 0.0, 4.0]])
    g, off = bounds_layer.hidden_gradient(BARE, HEADS, g_output, 0.0, U)
    same(g, g_output.reshape(2, 2))
    same(off, gamma(4 + 10, U) * np.array([[np.sqrt(5)], [4]]))


def test_the_gradient_at_the_input_is_off_by_a_column_of_the_projection_and_a_sum():
    # either token's error is 5 long; absolute values of the products: (10, 7, 4) and (2, 4, 2)
    expected = 5 * np.sqrt([14, 5, 6]) + gamma(4, U) * np.array([[10, 7, 4], [2, 4, 2]])
    same(bounds_layer.x_gradient(LAYER, AT_HIDDEN, OFF, U), expected)
    same(bounds_layer.x_gradient(BARE, AT_HIDDEN, OFF, U), 5 + gamma(4, U) * np.abs(AT_HIDDEN).reshape(2, 4))


def test_the_gradient_at_a_code_is_off_by_a_sum_over_all_heads():
    # s/β = 6: terms of lengths 30 and 6, and 6(1/2 + 3/4) that differences are off by
    total = gamma(2 + 8, U) * 36 + 7.5
    same(bounds_layer.codes_gradient(LAYER, HEADS, G_LOSS, U), np.full((2, 2, 2), total))
    turned = total + (4 / 4 + 2 * gamma(8, U)) * 36
    lengths = np.array([[[5], [4]], [[5], [6]]])
    same(bounds_layer.codes_gradient(COSINE, HEADS, G_LOSS, U), np.broadcast_to(turned / lengths, (2, 2, 2)))


def test_the_gradients_at_the_projections_are_off_by_sums_over_tokens():
    codes = np.array([[0.0, 0.0], [-1.0, 0.0], [-2.0, 0.0], [0.0, 3.0]])
    g_output = np.array([[1.0, -2.0, 4.0], [0.0, 1.0, 0.0]])
    heads = HEADS._replace(codes=codes)
    at_in, at_out = bounds_layer.weights_gradient(heads, X, AT_HIDDEN, OFF, g_output, U)
    first = gamma(2, U) * np.array([1, 2, 0, 3]) + np.array([3, 3, 4, 4])
    second = gamma(2, U) * np.array([2, 2, 0, 0]) + np.array([0, 0, 5, 5])
    same(at_in, np.outer(first, [1, 1, 2, 1]) + np.outer(second, [2, 2, 4, 1]))
    first = gamma(3, U) * np.array([0, 0, 1, 0, 1]) + 1 / 4
    second = gamma(3, U) * np.array([2, 0, 0, 3, 1]) + 1 / 4
    same(at_out, np.outer([1, 2, 4], first) + np.outer([0, 1, 0], second))


@pytest.mark.parametrize("layer", [LAYER, COSINE], ids=["plain", "cosine"])
@pytest.mark.parametrize("far", [(2.0**20, 1.0), (1.0, 2.0**20), (1.0, 1.0)], ids=["x", "g", "neither"])
def test_a_layer_has_the_bound_of_each_stage_and_of_the_worst_parameter(layer, far):
    x, g = far[0] * X, far[1] * np.array([[1.0, -2.0, 4.0], [0.0, 1.0, 0.0]])
    layer = replace(layer, codes=far[0] * layer.codes / 2.0**10)
    error = bounds_layer.vector_quantize(layer, x, g, G_LOSS, U)
    heads = bounds_layer.heads_of(layer, x, U)
    at_hidden, off = bounds_layer.hidden_gradient(layer, heads, g, G_LOSS, U)
    codes = bounds_layer.codes_gradient(layer, heads, G_LOSS, U)
    weights = bounds_layer.weights_gradient(heads, x, at_hidden, off, g, U)
    np.testing.assert_array_equal(error.output, bounds_layer.output(layer, heads, U))
    assert error.loss == bounds_layer.value(layer, heads, U)
    np.testing.assert_array_equal(error.x, bounds_layer.x_gradient(layer, at_hidden, off, U))
    np.testing.assert_array_equal(error.codes, codes)
    assert error.parameters == max(entries.max() for entries in (*weights, codes))


@pytest.mark.parametrize("unit", [False, True], ids=["plain", "cosine"])
def test_a_layer_in_float32_stays_within_its_bound(unit):
    u, generator = 2.0**-24, np.random.default_rng(0)

    def narrow(*shape):
        return generator.standard_normal(shape).astype(np.float32)

    codes, x, g = narrow(2, 9, 3), narrow(200, 5), narrow(200, 5)
    into, out = Layer(narrow(6, 5), narrow(6)), Layer(narrow(5, 6), narrow(5))
    layer = VectorQuantize(codes, 2, into, out, unit=unit, trained=True, beta=0.5)

    def directions(v):
        return v / np.sqrt(np.sum(v * v, axis=-1, keepdims=True)) if unit else v

    exact = layer.forward(x)
    hidden = (x @ into.weight.T + into.bias).reshape(200, 2, 3)
    tokens, q = directions(hidden), directions(codes)[np.arange(2), exact.indices]
    difference = tokens - q
    at_tokens = (g @ out.weight).reshape(200, 2, 3) + np.float32(1 / 1200) * difference
    if unit:
        along = np.sum(at_tokens * tokens, axis=2, keepdims=True)
        at_tokens = (at_tokens - tokens * along) / np.sqrt(np.sum(hidden * hidden, axis=2, keepdims=True))

    error = bounds_layer.vector_quantize(layer, x.astype(float), g.astype(float), 1.0, u)
    at = layer.gradients(x, g, 1.0)
    assert_within("output", q.reshape(200, 6) @ out.weight.T + out.bias, exact.output, error.output)
    assert_within("loss", np.float32(1.5) * np.mean(difference * difference), exact.loss, error.loss)
    assert_within("gradient at x", at_tokens.reshape(200, 6) @ into.weight, at.x, error.x)
    assert_within("gradient at W_in", at_tokens.reshape(200, 6).T @ x, at.project_in.weight, error.parameters)
    assert_within("gradient at W_out", g.T @ q.reshape(200, 6), at.project_out.weight, error.parameters)
