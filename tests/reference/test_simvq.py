"""The oracle's SimVQ as a whole: the parts put together by the chain rule, and what it refuses."""

import re
from dataclasses import replace

import numpy as np
import pytest

from vq_reference.codebook import Layer
from vq_reference.estimators import ESTIMATORS
from vq_reference.simvq import SimVQ

# Codes (0, 0), (4, 0) and (0, 2) from frozen ones of three entries. Every number below is worked out by hand.
FROZEN = np.array([[0.0, 0.0, 0.0], [0.0, 2.0, 0.0], [-1.0, 0.0, 0.0]])
WEIGHT = np.array([[0.0, 2.0, 0.0], [-2.0, 0.0, 0.0]])
LAYER = SimVQ(FROZEN, (Layer(WEIGHT),), estimator="straight_through", beta=0.5, commitment_weight=3.0)
X = np.array([[3.0, 1.0], [1.0, 2.0], [5.0, 0.0], [0.0, 0.0]])


def test_the_forward_chooses_hands_on_the_code_and_weighs_both_halves():
    quantized = LAYER.forward(X)
    np.testing.assert_array_equal(LAYER.codebook, [[0, 0], [4, 0], [0, 2]])
    np.testing.assert_array_equal(quantized.indices, [1, 2, 1, 0])
    np.testing.assert_array_equal(quantized.output, [[4, 0], [0, 2], [4, 0], [0, 0]])
    # squares: 1 + 1, 1 + 0, 1 + 0, 0 over 8 entries; 3·(½ + ½·½)
    assert quantized.loss == 3 * 1.5 * 4 / 8


def test_the_backward_of_the_loss_trains_encoder_codebook_and_transform():
    gradients = LAYER.gradients(X, np.zeros_like(X), 1.0)
    difference = X - LAYER.forward(X).output
    np.testing.assert_array_equal(gradients.x, 3 * 0.5 * 2 * difference / 8)
    at_codes = 3 * 2 / 8 * np.array([[0.0, 0.0], [1 - 1, -1 + 0], [-1, 0]])
    np.testing.assert_array_equal(gradients.codebook, at_codes)
    np.testing.assert_array_equal(gradients.transform[0].weight, at_codes.T @ FROZEN)
    assert gradients.transform[0].bias is None


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_the_gradients_of_output_and_loss_add_up(estimator):
    layer, g = replace(LAYER, estimator=estimator), np.arange(8.0).reshape(4, 2) / 4
    both, output, loss = (layer.gradients(X, *start) for start in ((g, 2.0), (g, 0.0), (0 * g, 2.0)))
    np.testing.assert_array_equal(both.x, output.x + loss.x)
    np.testing.assert_array_equal(both.codebook, output.codebook + loss.codebook)


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_an_estimator_decides_whether_the_outputs_gradient_trains_the_codes(estimator):
    gradients = replace(LAYER, estimator=estimator).gradients(X, np.ones_like(X), 0.0)
    if estimator == "none":
        np.testing.assert_array_equal(gradients.x, np.zeros_like(X))
        np.testing.assert_array_equal(gradients.codebook, [[1, 1], [2, 2], [1, 1]])
        return
    assert gradients.x.any()
    assert gradients.codebook.any() == (estimator == "directional")


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_an_empty_batch_is_good_input(estimator):
    layer, nothing = replace(LAYER, estimator=estimator), np.empty((0, 2))
    quantized = layer.forward(nothing)
    assert (quantized.output.shape, quantized.indices.shape, quantized.loss) == ((0, 2), (0,), 0.0)
    gradients = layer.gradients(nothing, nothing, 1.0)
    assert gradients.x.shape == (0, 2)
    np.testing.assert_array_equal(gradients.codebook, np.zeros((3, 2)))
    np.testing.assert_array_equal(gradients.transform[0].weight, np.zeros_like(WEIGHT))


def test_of_two_equal_codes_the_first_is_chosen_and_trained():
    layer = replace(LAYER, frozen_codebook=FROZEN[[1, 1, 2]])
    assert layer.forward(X).indices.tolist() == [0, 2, 0, 2]
    assert not layer.gradients(X, np.zeros_like(X), 1.0).codebook[1].any()


@pytest.mark.parametrize(
    ("change", "x", "error", "message"),
    [
        ({}, X[:, :1], ValueError, "x has shape (4, 1): expected (N, 2)"),
        ({}, X[0], ValueError, "x has shape (2,): expected (N, 2)"),
        ({}, X.astype(int), TypeError, "x has dtype int64: expected a real floating dtype"),
        ({}, X.astype(complex), TypeError, "x has dtype complex128: expected a real floating dtype"),
        ({}, np.full_like(X, np.nan), ValueError, "x[0, 0] is nan: expected finite entries"),
        ({"frozen_codebook": FROZEN[:0]}, X, ValueError, "frozen_codebook has shape (0, 3): expected at least one"),
        ({"transform": (Layer(WEIGHT.T),)}, X, ValueError, "transform[0].weight has shape (3, 2): expected (N, 3)"),
        ({"transform": (Layer(np.eye(3)),)}, X, ValueError, "x has shape (4, 2): expected (N, 3)"),
        ({"beta": -1.0}, X, ValueError, "beta is -1.0: expected a finite number of at least 0"),
        ({"commitment_weight": np.nan}, X, ValueError, "commitment_weight is nan: expected a finite number"),
    ],
)
def test_an_argument_that_cannot_be_quantized_is_named(change, x, error, message):
    layer = replace(LAYER, **change)
    with pytest.raises(error, match=re.escape(message)):
        layer.forward(x)
    with pytest.raises(error, match=re.escape(message)):
        layer.gradients(x, np.zeros((4, 2)), 1.0)


def test_an_unknown_estimator_is_named_by_the_backward():
    with pytest.raises(ValueError, match="estimator is 'gumbel': expected one of"):
        replace(LAYER, estimator="gumbel").gradients(X, np.zeros_like(X), 1.0)
