"""The oracle of a layer with projections, heads and a mask, against differences of the function that it declares."""

import numpy as np
import pytest

from vq_reference import vector_quantize
from vq_reference.codebook import Layer
from vq_reference.testing.laws.assertions import assert_within
from vq_reference.testing.laws.bounds import bounds_state
from vq_reference.testing.laws.bounds.bounds import gamma

U = 2.0**-53
DIM, HEADS, WIDTH, SIZE, COUNT = 5, 2, 3, 4, 6
STEP = 2.0**-6


def case(seed, shared, projects=True, unit=False):
    """Return a layer with trained codes, and tokens, in numbers of few digits."""
    rng = np.random.default_rng(seed)

    def numbers(*shape):
        return rng.integers(-64, 65, shape) / 32

    inner = HEADS * WIDTH
    layer = vector_quantize.VectorQuantize(
        numbers(1 if shared else HEADS, SIZE, WIDTH),
        heads=HEADS,
        project_in=Layer(numbers(inner, DIM), numbers(inner)) if projects else None,
        project_out=Layer(numbers(DIM, inner), numbers(DIM)) if projects else None,
        unit=unit,
        trained=True,
    )
    return layer, numbers(COUNT, DIM if projects else inner)


@pytest.mark.parametrize("shared", [True, False])
def test_gradients_are_differences_of_the_function_with_its_stops_held(shared):
    """The declared function is a polynomial of degree 2 in each argument: a central difference has no truncation error.

    What is left is rounding: that of the two values, over 2h, counting the operations of one value generously by the
    number of all entries that enter it.
    """
    layer, x = case(0, shared)
    rng = np.random.default_rng(1)
    g_output, g_loss = rng.integers(-8, 9, (COUNT, DIM)) / 4, 3.0
    indices = layer.forward(x).indices
    groups = np.arange(HEADS) % len(layer.codes)
    q = layer.codes[groups, indices]
    hidden = (x @ layer.project_in.weight.T + layer.project_in.bias).reshape(COUNT, HEADS, WIDTH)

    def declared(x, codes, weight_in, weight_out):
        t = (x @ weight_in.T + layer.project_in.bias).reshape(COUNT, HEADS, WIDTH)
        output = (q + (t - hidden)).reshape(COUNT, -1) @ weight_out.T + layer.project_out.bias
        codebook_half = np.mean((hidden - codes[groups, indices]) ** 2)
        encoder_half = np.mean((t - q) ** 2)
        loss = layer.commitment_weight * (codebook_half + layer.beta * encoder_half)
        return np.sum(g_output * output) + g_loss * loss

    at = layer.gradients(x, g_output, g_loss)
    places = [x, layer.codes, layer.project_in.weight, layer.project_out.weight]
    found = [at.x, at.codes, at.project_in.weight, at.project_out.weight]
    terms = sum(place.size for place in places) + g_output.size
    for i, (place, gradient) in enumerate(zip(places, found, strict=True)):
        v = rng.integers(-4, 5, place.shape) / 4
        ahead, behind = list(places), list(places)
        ahead[i], behind[i] = place + STEP * v, place - STEP * v
        difference = (declared(*ahead) - declared(*behind)) / (2 * STEP)
        largest = np.sum(np.abs(g_output)) * np.max(np.abs(hidden)) * np.sum(np.abs(layer.project_out.weight))
        bound = gamma(terms, U) * largest / STEP
        assert_within(f"argument {i}", np.sum(gradient * v), difference, bound)


def test_biases_get_what_reaches_the_tokens_and_the_output():
    layer, x = case(2, shared=True)
    g_output = np.ones((COUNT, DIM))
    at = layer.gradients(x, g_output, 0.0)
    assert np.array_equal(at.project_out.bias, g_output.sum(axis=0))
    absolute = COUNT * np.sum(np.abs(layer.project_out.weight), axis=0)
    expected = COUNT * layer.project_out.weight.sum(axis=0)
    assert_within("bias", at.project_in.bias, expected, 2 * gamma(COUNT * DIM, U) * absolute)


@pytest.mark.parametrize("unit", [False, True])
@pytest.mark.parametrize("projects", [False, True])
def test_a_masked_batch_is_the_batch_of_its_valid_tokens(projects, unit):
    layer, x = case(3, shared=False, projects=projects, unit=unit)
    mask = np.array([True, False, True, True, False, False])
    g_output = np.ones_like(x)
    masked, alone = layer.forward(x, mask), layer.forward(x[mask])
    assert np.array_equal(masked.output[mask], alone.output)
    assert not masked.output[~mask].any()
    assert np.all(masked.indices[~mask] == -1)
    assert masked.loss == alone.loss
    at, at_alone = layer.gradients(x, g_output, 2.0, mask), layer.gradients(x[mask], g_output[mask], 2.0)
    assert np.array_equal(at.x[mask], at_alone.x)
    assert not at.x[~mask].any()
    assert np.array_equal(at.codes, at_alone.codes)


def test_no_valid_token_costs_nothing():
    layer, x = case(4, shared=True)
    nothing = np.zeros(COUNT, dtype=bool)
    assert layer.forward(x, nothing).loss == 0
    assert not layer.gradients(x, np.ones_like(x), 1.0, nothing).x.any()


@pytest.mark.parametrize("unit", [False, True])
def test_a_head_is_a_layer_of_its_own(unit):
    layer, x = case(5, shared=False, projects=False, unit=unit)
    together = layer.forward(x)
    for head in range(HEADS):
        part = slice(head * WIDTH, (head + 1) * WIDTH)
        alone = vector_quantize.VectorQuantize(layer.codes[head : head + 1], unit=unit).forward(x[:, part])
        assert np.array_equal(together.output[:, part], alone.output)
        assert np.array_equal(together.indices[:, head], alone.indices[:, 0])


def test_the_cosine_metric_does_not_look_at_lengths():
    layer, x = case(6, shared=True, projects=False, unit=True)
    scaled = layer.forward(x * 2.0 ** np.arange(COUNT)[:, None])
    assert np.array_equal(scaled.indices, layer.forward(x).indices)
    length = np.linalg.norm(scaled.output.reshape(COUNT, HEADS, WIDTH), axis=2)
    assert_within("length", length, 1.0, bounds_state.unit(WIDTH, U) + gamma(WIDTH + 1, U))


def test_a_mask_that_does_not_fit_is_named():
    layer, x = case(7, shared=True)
    with pytest.raises(ValueError, match="mask is int64"):
        layer.forward(x, np.ones(COUNT, dtype=int))


@pytest.mark.parametrize("trained", [True, False])
def test_the_loss_and_its_gradients_are_weighed_by_beta_and_the_weight(trained):
    layer = vector_quantize.VectorQuantize(
        np.array([[[0.0], [4.0]]]), heads=2, trained=trained, beta=0.5, commitment_weight=3.0
    )
    # t − q = (1, 2)
    x = np.array([[1.0, 6.0]])
    assert layer.forward(x).loss == 3 * (trained + 0.5) * (1 + 4) / 2
    at = layer.gradients(x, np.zeros((1, 2)), -1.0)
    np.testing.assert_array_equal(at.x, 3 * 0.5 * 2 / 2 * np.array([[-1, -2]]))
    np.testing.assert_array_equal(at.codes, 3 * 2 / 2 * trained * np.array([[[1], [2]]]))


def test_with_the_cosine_metric_the_loss_and_the_gradient_at_a_code_are_those_of_directions():
    codes = np.array([[[0.0, 2.0], [-5.0, 0.0]]])
    layer = vector_quantize.VectorQuantize(codes, unit=True, trained=True, beta=0.5)
    x = np.array([[3.0, 4.0]])
    # (0.6, 0.8) − (0, 1); the gradient at the direction (0, 1) is (−0.6, 0.2), of which what lies across it, over 2
    rounding = gamma(20, U)
    assert_within("loss", layer.forward(x).loss, 1.5 * 0.4 / 2, rounding)
    expected = np.array([[[-0.3, 0.0], [0.0, 0.0]]])
    assert_within("codes", layer.gradients(x, np.zeros((1, 2)), 1.0).codes, expected, rounding)


@pytest.mark.parametrize("bias", [None, np.array([0.5, -1.0, 0.0])], ids=["no bias", "bias"])
def test_the_output_is_the_code_behind_its_projection(bias):
    out = Layer(np.array([[1.0, -2.0], [0.0, 3.0], [2.0, 2.0]]), bias)
    into = Layer(np.array([[1.0, 0.0, 1.0], [0.0, 2.0, 0.0]]), None if bias is None else np.array([1.0, 0.0]))
    layer = vector_quantize.VectorQuantize(np.array([[[9.0, 9.0], [2.0, 1.0]]]), project_in=into, project_out=out)
    quantized = layer.forward(np.array([[1.0, 1.0, 1.0]]))
    np.testing.assert_array_equal(quantized.output, [np.array([0, 3, 6]) + (0 if bias is None else bias)])
    # h = (2, 2), with bias (3, 2); t − q = (0, 1) or (1, 1)
    assert quantized.loss == 0.25 * (1 / 2 if bias is None else 1)
    at = layer.gradients(np.ones((1, 3)), np.ones((1, 3)), 0.0)
    assert (at.project_in.bias is None, at.project_out.bias is None) == (bias is None, bias is None)


def test_gradients_are_float64_whatever_the_layer_is():
    layer = vector_quantize.VectorQuantize(np.full((1, 2, 1), 1 / 3, np.float32), trained=True)
    x = np.array([[0.1], [0.7]], np.float32)
    at = layer.gradients(x, x, 1.0)
    assert (at.x.dtype, at.codes.dtype) == (np.float64, np.float64)


def test_tokens_that_cannot_be_quantized_are_named():
    layer, x = case(8, shared=True)
    with pytest.raises(ValueError, match=r"^x\[0, 0\] is nan: expected finite entries"):
        layer.forward(x * np.nan)
