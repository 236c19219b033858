"""The commitment loss ℓ = w·(mean(sg(x) − q)² + β·mean(x − sg(q))²): its value, and which half trains what.

The value alone says little: β on the wrong half, or a half without gradient, leaves it as it is.
"""

import dataclasses

import numpy as np

from vq_reference import codebook, loss, nearest
from vq_reference.testing import bounds
from vq_reference.testing.adapters.implementation import Cotangent
from vq_reference.testing.law import law
from vq_reference.testing.measure import assert_within
from vq_reference.testing.strategies import TRAINED, cases, transform_cases

OORD = "van den Oord et al., arXiv 1711.00937, eq. 3"
SIMVQ = "Zhu et al., arXiv 2411.02038, §3"
LOSS = {"loss", "indices"}
BOTH = {"estimator:straight_through", "estimator:rotation"}
any_transform = transform_cases(layers=1) | transform_cases(layers=2) | transform_cases(layers=3)


def backward_of_the_loss(implementation, case):
    """Return the answer to one backward that starts at the loss alone."""
    return implementation.build(case.reference)(case.x, [Cotangent(np.zeros_like(case.x), 1.0)])


def halves(implementation, case, indices):
    """Return the closed forms for the codes that were chosen: ℓ, its gradient at x, and at each token's code."""
    a, b = implementation.loss_weights(case.reference)
    q = case.codes[indices]
    value = loss.commitment_loss(case.x, q, 0.0, a) + loss.commitment_loss(case.x, q, 0.0, b)
    _, at_q = loss.vjp(case.x, q, commitment_weight=a)
    at_x, _ = loss.vjp(case.x, q, beta=1.0, commitment_weight=b)
    return value, at_x, at_q


def arrived(gradient, expected):
    """Return the gradient, and zero for none at all: that is what an optimizer makes of it."""
    return np.zeros_like(expected) if gradient is None else gradient


@law("loss.formula", level="must", source=OORD, needs=LOSS, case=cases())
def test_the_commitment_loss_equals_its_formula(implementation, case):
    """The loss is w·(1 + β) times the mean squared distance of the inputs to their codes."""
    answer = implementation.build(case.reference)(case.x)
    expected, _, _ = halves(implementation, case, answer.indices)
    bound = bounds.mean_square(case.x.size, implementation.precision.unit_roundoff) * expected
    assert_within("ℓ", answer.loss, expected, bound)


@law("loss.encoder_half", level="must", source=OORD, needs=LOSS, case=cases())
def test_the_encoder_half_trains_the_encoder(implementation, case):
    """The loss pulls the encoder to its codes: its gradient at the input is w·β·2(x − q)/(N·D), and no other."""
    answer = backward_of_the_loss(implementation, case)
    _, expected, _ = halves(implementation, case, answer.indices)
    actual = arrived(answer.gradients[0].x, expected)
    assert_within("∂ℓ/∂x", actual, expected, bounds.loss_gradient(expected, implementation.precision.unit_roundoff))


@law("loss.codebook_half", level="must", source=OORD, needs=LOSS | {"codebook_gradient"}, case=cases())
def test_the_codebook_half_trains_the_codebook(implementation, case):
    """The loss pulls each code to its tokens: its gradient at the codebook is the sum of w·2(q − x)/(N·D) over them."""
    answer = backward_of_the_loss(implementation, case)
    _, _, at_q = halves(implementation, case, answer.indices)
    expected = nearest.gather_vjp(answer.indices, at_q, len(case.codes))
    bound = bounds.codebook_gradient(at_q, answer.indices, len(case.codes), implementation.precision.unit_roundoff)
    assert_within("∂ℓ/∂E", arrived(answer.gradients[0].codebook, expected), expected, bound)


@law("loss.linear_transform", level="must", source=SIMVQ, needs=LOSS | {"transform"}, case=transform_cases(layers=1))
def test_the_codebook_half_trains_a_linear_transform(implementation, case):
    """The loss trains the transform of the frozen codes: the gradient at its weight is the closed form."""
    assert_transform_trained(implementation, case)


@law("loss.transform", level="must", source=SIMVQ, needs=LOSS | {"mlp"}, case=any_transform)
def test_the_codebook_half_trains_every_layer_of_the_transform(implementation, case):
    """The loss trains every layer of the transform: the gradient at each weight and bias is the closed form."""
    assert_transform_trained(implementation, case)


def assert_transform_trained(implementation, case):
    answer = backward_of_the_loss(implementation, case)
    frozen, transform = case.reference.frozen_codebook, case.reference.transform
    _, _, at_q = halves(implementation, case, answer.indices)
    at_codebook = nearest.gather_vjp(answer.indices, at_q, len(case.codes))
    absolute = nearest.gather_vjp(answer.indices, np.abs(at_q), len(case.codes))
    u = implementation.precision.unit_roundoff
    bound = bounds.transform_gradient(frozen, transform, absolute, len(case.x), u)
    for i, layer in enumerate(codebook.vjp(frozen, transform, at_codebook)):
        for kind, expected in (("weight", layer.weight), ("bias", layer.bias)):
            if expected is not None:
                actual = arrived(answer.gradients[0].parameters.get(f"{i}.{kind}"), expected)
                assert_within(f"∂ℓ/∂{kind} of layer {i}", actual, expected, bound[f"{i}.{kind}"])


@law("loss.any_estimator", level="must", source=OORD, needs=LOSS | BOTH | {"codebook_gradient"}, case=cases())
def test_the_commitment_loss_does_not_depend_on_the_estimator(implementation, case):
    """Switching the gradient trick changes neither the loss nor its gradients at the input and the codebook."""
    first, second = (
        backward_of_the_loss(
            implementation, dataclasses.replace(case, reference=dataclasses.replace(case.reference, estimator=e))
        )
        for e in TRAINED
    )
    u = implementation.precision.unit_roundoff
    assert_within("indices", first.indices, second.indices, 0.0)
    value, at_x, at_q = halves(implementation, case, first.indices)
    at_codes = nearest.gather_vjp(first.indices, at_q, len(case.codes))
    assert_within("ℓ", first.loss, second.loss, 2 * bounds.mean_square(case.x.size, u) * value)
    of_x, of_codes = (
        [arrived(a.gradients[0][i], like) for a in (first, second)] for i, like in enumerate((at_x, at_codes))
    )
    assert_within("∂ℓ/∂x", *of_x, 2 * bounds.loss_gradient(at_x, u))
    assert_within("∂ℓ/∂E", *of_codes, 2 * bounds.codebook_gradient(at_q, first.indices, len(case.codes), u))
