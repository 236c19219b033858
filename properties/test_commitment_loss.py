"""The commitment loss ℓ = w·(mean(sg(x) − q)² + β·mean(x − sg(q))²): its value, and which half trains what.

The value alone says little: β on the wrong half, or a half without gradient, leaves it as it is.
"""

import dataclasses

import numpy as np

from vq_reference.testing.adapters.implementation import Cotangent
from vq_reference.testing.closed_forms import arrived, loss_of
from vq_reference.testing.law import law
from vq_reference.testing.measure import assert_within
from vq_reference.testing.strategies import TRAINED, cases, transform_cases

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
