"""The commitment loss ℓ = w·(mean(sg(x) − q)² + β·mean(x − sg(q))²): its value, and which half trains what.

The value alone says little: β on the wrong half, or a half without gradient, leaves it as it is.
"""

import dataclasses

import numpy as np
from hypothesis import assume
from hypothesis import strategies as st

from vq_reference.testing.interface.implementation import Cotangent
from vq_reference.testing.interface.subjects import REGULAR_NORMS, TRAINED, Case
from vq_reference.testing.laws.assertions import assert_within
from vq_reference.testing.laws.bounds import bounds
from vq_reference.testing.laws.expected.commitment_loss import arrived, loss_of
from vq_reference.testing.laws.expected.two_parts import in_two_parts, sure_of_every_token
from vq_reference.testing.laws.law import law
from vq_reference.testing.laws.strategies.simvq_cases import cases, transform_cases, without_traces

OORD = "van den Oord et al., arXiv 1711.00937, eq. 3"
SIMVQ = "Zhu et al., arXiv 2411.02038, §3"
LOSS = {"loss", "indices"}
BOTH = {"estimator:straight_through", "estimator:rotation"}
several_layers = transform_cases(layers=2) | transform_cases(layers=3)


def backward_of_the_loss(implementation, case):
    """Return the answer to one backward that starts at the loss alone, and the closed forms for what it chose."""
    answer = implementation.build(case.reference)(case.x, [Cotangent(np.zeros_like(case.x), 1.0)])
    return answer, loss_of(implementation, case, answer.indices)


@law("loss.formula", level="must", source=OORD, needs=LOSS, case=cases())
def test_the_commitment_loss_equals_its_formula(implementation, case):
    """The loss is w·(1 + β) times the mean squared distance of the inputs to their codes."""
    answer, expected = backward_of_the_loss(implementation, case)
    assert_within("ℓ", answer.loss, expected.value, expected.value_bound)


@law("loss.encoder_half", level="must", source=OORD, needs=LOSS, case=cases())
def test_the_encoder_half_trains_the_encoder(implementation, case):
    """The loss pulls the encoder to its codes: its gradient at the input is w·β·2(x − q)/(N·D), and no other."""
    answer, expected = backward_of_the_loss(implementation, case)
    actual = arrived(answer.gradients[0].x, expected.at_x)
    assert_within("∂ℓ/∂x", actual, expected.at_x, expected.at_x_bound)


@law("loss.codebook_half", level="must", source=OORD, needs=LOSS | {"codebook_gradient"}, case=cases())
def test_the_codebook_half_trains_the_codebook(implementation, case):
    """The loss pulls each code to its tokens: its gradient at the codebook is the sum of w·2(q − x)/(N·D) over them."""
    answer, expected = backward_of_the_loss(implementation, case)
    actual = arrived(answer.gradients[0].codebook, expected.at_codebook)
    assert_within("∂ℓ/∂E", actual, expected.at_codebook, expected.at_codebook_bound)


@law("loss.linear_transform", level="must", source=SIMVQ, needs=LOSS | {"transform"}, case=transform_cases(layers=1))
def test_the_codebook_half_trains_a_linear_transform(implementation, case):
    """The loss trains the transform of the frozen codes: the gradient at its weight is the closed form."""
    assert_transform_trained(implementation, case)


@law("loss.transform", level="must", source=SIMVQ, needs=LOSS | {"mlp"}, case=several_layers)
def test_the_codebook_half_trains_every_layer_of_the_transform(implementation, case):
    """The loss trains every layer of the transform: the gradient at each weight and bias is the closed form."""
    assert_transform_trained(implementation, case)


def assert_transform_trained(implementation, case):
    answer, expected = backward_of_the_loss(implementation, case)
    for name, gradient in expected.at_transform.items():
        actual = arrived(answer.gradients[0].parameters.get(name), gradient)
        assert_within(f"∂ℓ/∂({name})", actual, gradient, expected.at_transform_bound[name])


@law("loss.any_estimator", level="must", source=OORD, needs=LOSS | BOTH, case=cases())
def test_the_commitment_loss_does_not_depend_on_the_estimator(implementation, case):
    """Switching the gradient trick changes neither the loss nor its gradients at the input and the codebook."""
    references = [dataclasses.replace(case.reference, estimator=estimator) for estimator in TRAINED]
    (first, expected), (second, _) = (
        backward_of_the_loss(implementation, dataclasses.replace(case, reference=r)) for r in references
    )
    assert_within("indices", first.indices, second.indices, 0.0)
    assert_within("ℓ", first.loss, second.loss, 2 * expected.value_bound)
    for name, bound in (("x", expected.at_x_bound), ("codebook", expected.at_codebook_bound)):
        one, other = (arrived(getattr(answer.gradients[0], name), bound) for answer in (first, second))
        assert_within(f"∂ℓ/∂{name}", one, other, 2 * bound)


def answer_to_the_loss(implementation, case):
    return implementation.build(case.reference)(case.x, [Cotangent(np.zeros_like(case.x), 1.0)])


@law("loss.zero", level="must", source=OORD, needs=LOSS, case=cases(most_codes=8))
def test_the_loss_is_zero_on_the_codes_and_never_negative(implementation, case):
    """The loss is zero for inputs that are codes, and never negative."""
    value = implementation.build(case.reference)(case.x).loss
    assert_within("negative part of ℓ", min(value, 0.0), 0.0, 0.0)
    sure_of_every_token(implementation, Case(case.reference, case.codes))
    assert_within("ℓ on the codes", implementation.build(case.reference)(case.codes).loss, 0.0, 0.0)


@law("loss.homogeneous", level="must", source=OORD, needs=LOSS, case=cases(), exponent=st.sampled_from([-2, 1, 3]))
def test_scaling_inputs_and_codes_scales_the_loss_by_the_square(implementation, case, exponent):
    """The loss has degree two: twice the inputs and codes give four times the loss."""
    sure_of_every_token(implementation, case)
    scale = 2.0**exponent
    scaled = dataclasses.replace(case.reference, frozen_codebook=case.reference.frozen_codebook * scale)
    answer = implementation.build(case.reference)(case.x)
    actual = implementation.build(scaled)(case.x * scale).loss
    bound = 2 * loss_of(implementation, case, answer.indices).value_bound
    assert_within("ℓ", actual, answer.loss * scale**2, bound * scale**2)


@law("loss.weight", level="must", source=OORD, needs=LOSS, case=cases())
def test_the_loss_is_linear_in_its_weight(implementation, case):
    """Twice the commitment weight gives twice the loss and twice its gradient at the input."""
    double = dataclasses.replace(case.reference, commitment_weight=2 * case.reference.commitment_weight)
    once, twice = (answer_to_the_loss(implementation, Case(r, case.x)) for r in (case.reference, double))
    expected = loss_of(implementation, case, once.indices)
    # a layer without such an argument declares the same weights for both, and 1 is then the factor
    single = sum(implementation.loss_weights(case.reference))
    assume(single > 0)
    factor = sum(implementation.loss_weights(double)) / single
    assert_within("ℓ", twice.loss, factor * once.loss, 4 * expected.value_bound)
    at_x, doubled = (arrived(answer.gradients[0].x, case.x) for answer in (once, twice))
    assert_within("∂ℓ/∂x", doubled, factor * at_x, 4 * expected.at_x_bound)


@law(
    "loss.scaled",
    level="must",
    source="a derivative is linear",
    needs=LOSS,
    case=cases(),
    exponent=st.sampled_from([1, 5, 10, 16, -4]),
)
def test_scaling_the_loss_scales_its_gradients(implementation, case, exponent):
    """Multiplying the loss multiplies its gradients, as the loss scaling of mixed precision relies on."""
    scale = 2.0**exponent
    assume(scale <= implementation.precision.largest)  # 2^16 is no float16
    starts = [Cotangent(np.zeros_like(case.x), weight) for weight in (1.0, scale)]
    answer = implementation.build(case.reference)(case.x, starts)
    expected = loss_of(implementation, case, answer.indices)
    once, scaled = answer.gradients
    bounds = {"x": expected.at_x_bound, "codebook": expected.at_codebook_bound}
    for name, bound in bounds.items():
        single, multiple = (arrived(getattr(gradients, name), bound) for gradients in (once, scaled))
        assume(np.all(scale * np.abs(single) <= implementation.precision.largest / 8))
        assert_within(f"∂(sℓ)/∂{name}", multiple, scale * single, (1 + scale) * bound + scale * bound)


@law("loss.additive", level="must", source=OORD, needs=LOSS, case=cases(), data=st.data())
def test_the_loss_of_a_batch_is_the_mean_of_its_parts(implementation, case, data):
    """The loss of a batch is the mean of the losses of its parts, weighted by their sizes."""
    (whole, *parts), weights = in_two_parts(implementation, case, data)
    expected = sum(weight * part.loss for weight, part in zip(weights, parts, strict=True))
    assert_within("ℓ", whole.loss, expected, 2 * loss_of(implementation, case, whole.indices).value_bound)


OORD_DIFFERENTIATED = (
    "van den Oord et al., arXiv 1711.00937, eq. 3: its plain derivative, and what the stop-gradients leave of it"
)
NEEDS = {"loss", "indices", "codebook_gradient"}
one_code = cases(places=("anywhere", "at an angle"), most_codes=1)


def share(gradient, step, values, errors):
    """Return autograd's derivative along `step` over the plain one, and the bound on that quotient."""
    routed = float(np.sum(gradient * step))
    plain = (values[0] - values[1]) / 2
    return routed / plain, abs(routed) / plain**2 * (errors[0] + errors[1]) / 2


@law("loss.shares", level="must", source=OORD_DIFFERENTIATED, needs=NEEDS, case=one_code)
def test_encoder_and_codebook_get_their_shares_of_the_losss_derivative(implementation, case):
    """Of the loss's plain derivative the encoder gets β/(1 + β) and the codebook 1/(1 + β), as declared."""
    a, b = implementation.loss_weights(case.reference)
    c = a + b if implementation.loss_value is None else implementation.loss_value(case.reference)
    assume(c > 0)  # nothing cannot be shared
    # one code, or an instance whose codes are all the same: no choice can change while it is moved
    x, code, rounded = case.x, case.codes[:1], implementation.precision.round
    assume(np.all(np.linalg.norm(x - code, axis=1) > REGULAR_NORMS[0]))
    answer = implementation.build(case.reference)(x, [Cotangent(np.zeros_like(x), 1.0)])

    outward, inward = rounded(x + (x - code) / 2), rounded(x - (x - code) / 2)
    values = [implementation.build(case.reference)(moved).loss for moved in (outward, inward)]
    off = displaced(x, outward, inward, x - code)
    check(implementation, "encoder", answer.gradients[0].x, (outward - inward) / 2, values, b / c, off, case)

    step = np.mean(code - x, axis=0, keepdims=True)
    assume(np.linalg.norm(step) > REGULAR_NORMS[0])
    ahead, behind = rounded(case.codes + step / 2), rounded(case.codes - step / 2)
    values = [implementation.build(with_code(case, moved))(x).loss for moved in (ahead, behind)]
    off = displaced(case.codes, ahead, behind, step)
    check(implementation, "codebook", answer.gradients[0].codebook, (ahead - behind) / 2, values, a / c, off, case)


def displaced(at, ahead, behind, away):
    """Return how far the plain derivative in the middle of two points is from that at `at`, relative to the latter.

    The derivative along a step is a multiple of away·step, where `away` is how far `at` is from what it is compared
    with. In the middle, which is m away from `at`, it is that of (away + m)·step: (1 + δ) times as large with
    δ = m·step / away·step. A quotient by it is off by δ/(1 − δ) = m·step / (away·step − m·step). The differences here
    are exact: the points are close. Points that rounding has moved as far as they are apart say nothing.
    """
    step, middle = ahead - behind, ((ahead - at) + (behind - at)) / 2
    moved, whole = abs(float(np.sum(middle * step))), abs(float(np.sum(away * step)))
    assume(moved < whole)
    return moved / (whole - moved)


def with_code(case, code):
    layer = case.reference.transform[0]
    frozen = without_traces(code) @ layer.weight / float(np.max(np.abs(layer.weight))) ** 2
    return dataclasses.replace(case.reference, frozen_codebook=frozen)


def check(implementation, side, gradient, step, values, expected, off, case: Case):
    u, size = implementation.precision.unit_roundoff, case.x.size
    errors = [bounds.mean_square(size, u) * value for value in values]
    measured, error = share(arrived(gradient, step), step, values, errors)
    # a gradient that is not there has no error of its own: what is expected sets the scale
    error += (error + bounds.gamma(2 * size + 16, u) + off) * expected
    assert_within(f"{side}'s share", measured, expected, error)
