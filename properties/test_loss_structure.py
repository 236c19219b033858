"""What follows from the loss being a weighted mean of squares, whatever β is called and wherever it stands."""

import dataclasses

import numpy as np
from hypothesis import assume
from hypothesis import strategies as st

from vq_reference.testing.adapters.implementation import Cotangent
from vq_reference.testing.choice import decided
from vq_reference.testing.closed_forms import arrived, loss_of
from vq_reference.testing.law import law
from vq_reference.testing.measure import assert_within
from vq_reference.testing.strategies import Case, cases, transform_cases

OORD = "van den Oord et al., arXiv 1711.00937, eq. 3"
SIMVQ = "Zhu et al., arXiv 2411.02038, §3"
LOSS = {"loss", "indices"}


def backward_of_the_loss(implementation, case):
    return implementation.build(case.reference)(case.x, [Cotangent(np.zeros_like(case.x), 1.0)])


def sure_of_every_token(implementation, case):
    """Leave out cases in which rounding may change a choice: these laws compare two calls."""
    assume(decided(implementation, case).all())


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
    once, twice = (backward_of_the_loss(implementation, Case(r, case.x)) for r in (case.reference, double))
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


def in_two_parts(implementation, case, data):
    """Return one answer on the whole batch, one on each of two parts, and the weights that put them together again."""
    assume(len(case.x) > 1)
    sure_of_every_token(implementation, case)
    cut = data.draw(st.integers(1, len(case.x) - 1), label="first part's size")
    layer = implementation.build(case.reference)
    answers = [layer(x, [Cotangent(np.zeros_like(x), 1.0)]) for x in (case.x, case.x[:cut], case.x[cut:])]
    share = cut / len(case.x)
    return answers, (share, 1 - share) if implementation.loss_reduction == "mean" else (1.0, 1.0)


@law("loss.additive", level="must", source=OORD, needs=LOSS, case=cases(), data=st.data())
def test_the_loss_of_a_batch_is_the_mean_of_its_parts(implementation, case, data):
    """The loss of a batch is the mean of the losses of its parts, weighted by their sizes."""
    (whole, *parts), weights = in_two_parts(implementation, case, data)
    expected = sum(weight * part.loss for weight, part in zip(weights, parts, strict=True))
    assert_within("ℓ", whole.loss, expected, 2 * loss_of(implementation, case, whole.indices).value_bound)


@law("simvq.additive", level="must", source=SIMVQ, needs=LOSS | {"transform"}, case=transform_cases(1), data=st.data())
def test_the_gradient_of_the_transform_adds_up_over_tokens(implementation, case, data):
    """The transform's gradient over a batch is the mean over its parts: no token is lost or counted twice."""
    (whole, *parts), weights = in_two_parts(implementation, case, data)
    bound = loss_of(implementation, case, whole.indices).at_transform_bound
    for name, limit in bound.items():
        of_whole, *of_parts = (arrived(a.gradients[0].parameters[name], limit) for a in (whole, *parts))
        expected = sum(weight * part for weight, part in zip(weights, of_parts, strict=True))
        assert_within(f"∂ℓ/∂({name})", of_whole, expected, 2 * limit)


@law("simvq.frozen", level="must", source=SIMVQ, needs=LOSS | {"transform"}, case=transform_cases(layers=1))
def test_the_frozen_codes_get_no_gradient(implementation, case):
    """The frozen codebook of SimVQ gets no gradient: only its transform is trained."""
    answer = implementation.build(case.reference)(case.x, [Cotangent(np.ones_like(case.x), 1.0)])
    at_frozen = arrived(answer.gradients[0].frozen, case.reference.frozen_codebook)
    assert_within("gradient at the frozen codes", at_frozen, 0.0, 0.0)
