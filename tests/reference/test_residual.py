"""The oracle of a residual stack, in numbers so short that nothing rounds unless a bound says so."""

import numpy as np
import pytest

from vq_reference import nearest
from vq_reference.residual import ResidualStack
from vq_reference.testing.laws.assertions import assert_within
from vq_reference.testing.laws.bounds.bounds import gamma

U = 2.0**-53
COUNT, DIM = 5, 3
SIZES = (4, 6, 7)


def stack(seed, **arguments):
    rng = np.random.default_rng(seed)
    codes = tuple(rng.integers(-32, 33, (size, DIM)) / 2.0 ** (i + 4) for i, size in enumerate(SIZES))
    return ResidualStack(codes, **arguments), rng.integers(-64, 65, (COUNT, DIM)) / 32


@pytest.mark.parametrize("kept", [1, 2, 3])
def test_the_output_is_the_sum_of_one_code_from_each_layer(kept):
    layers, x = stack(0)
    quantized = layers.forward(x, kept)
    left = x
    for i in range(kept):
        assert np.array_equal(quantized.indices[:, i], nearest.nearest(left, layers.codes[i]))
        left = left - layers.codes[i][quantized.indices[:, i]]
    assert np.array_equal(quantized.output, x - left)
    assert np.array_equal(quantized.output, layers.decode(quantized.indices))
    assert np.all(quantized.indices[:, kept:] == -1)
    assert not quantized.losses[kept:].any()


@pytest.mark.parametrize("kept", [1, 3])
def test_the_gain_of_the_stack_is_that_of_one_quantizer(kept):
    layers, x = stack(1)
    g = np.arange(COUNT * DIM, dtype=float).reshape(COUNT, DIM)
    assert np.array_equal(layers.gradients(x, g, [0.0] * len(SIZES), kept).x, g)


@pytest.mark.parametrize("layer", range(len(SIZES)))
def test_each_loss_reaches_x_and_the_codes_of_its_own_layer_only(layer):
    layers, x = stack(2, trained=True)
    weights = np.eye(len(SIZES))[layer]
    at = layers.gradients(x, np.zeros_like(x), weights)
    residuals, indices, quantized = layers.residuals(x)
    expected = 2 * layers.beta * (residuals[layer] - quantized[layer]) / x.size
    assert_within("at x", at.x, expected, gamma(8, U) * np.abs(expected))
    assert at.x.any()
    for i, gradient in enumerate(at.codes):
        assert gradient.any() == (i == layer)
    at_q = 2 * (quantized[layer] - residuals[layer]) / x.size
    bound = gamma(8 + COUNT, U) * nearest.gather_vjp(indices[layer], np.abs(at_q), SIZES[layer])
    assert_within("codes", at.codes[layer], nearest.gather_vjp(indices[layer], at_q, SIZES[layer]), bound)


def test_codes_that_are_not_trained_get_nothing_and_cost_only_the_encoder_half():
    trained, x = stack(3, trained=True, beta=0.5)
    untrained = ResidualStack(trained.codes, beta=0.5)
    assert not any(g.any() for g in untrained.gradients(x, x, [1.0] * len(SIZES)).codes)
    both, half = trained.forward(x).losses, untrained.forward(x).losses
    assert_within("loss", half, both / 3, gamma(COUNT * DIM + 8, U) * both)


def test_a_dropped_layer_adds_nothing_wherever_it_stands():
    layers, x = stack(4)
    indices = layers.forward(x).indices
    indices[:, 1] = -1
    expected = layers.codes[0][indices[:, 0]] + layers.codes[2][indices[:, 2]]
    assert np.array_equal(layers.decode(indices), expected)


def test_the_loss_and_its_gradients_are_weighed_by_beta_and_the_weight():
    # (2, −2) − (4, 0): every loss is 4 times its weights; two entries
    code, x, nothing = np.array([[4.0, 0.0]]), np.array([[2.0, -2.0]]), np.zeros((1, 2))
    trained = ResidualStack((code,), trained=True, beta=0.5, commitment_weight=3.0)
    assert trained.forward(x).losses == 3 * 1.5 * 4
    assert ResidualStack((code,), beta=0.5, commitment_weight=3.0).forward(x).losses == 3 * 0.5 * 4
    at = trained.gradients(x, nothing, [-1.0])
    assert np.array_equal(at.x, [[3.0, 3.0]])
    assert np.array_equal(at.codes[0], [[-6.0, -6.0]])


@pytest.mark.parametrize("trained", [True, False])
def test_layers_that_are_left_out_have_no_gradient_of_their_own(trained):
    layers, x = stack(5, trained=trained)
    none, one = (layers.gradients(x, x, [1.0] * len(SIZES), kept) for kept in (0, 1))
    assert np.array_equal(none.x, x)
    assert [gradient.shape for gradient in none.codes] == [(size, DIM) for size in SIZES]
    assert [bool(gradient.any()) for gradient in one.codes] == [trained, False, False]
    assert np.array_equal(one.x, layers.gradients(x, x, [1.0, 0.0, 0.0]).x)
    assert not layers.forward(x, 0).output.any()


def test_tokens_that_cannot_be_quantized_are_named():
    layers, x = stack(0)
    with pytest.raises(ValueError, match=r"^x has shape \(3,\): expected \(N, D\)"):
        layers.forward(x[0])
