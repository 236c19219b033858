"""The straight-through estimator: the output is the code, and the gradient passes unchanged."""

import numpy as np

from vq_reference.testing.interface.subjects import REGULAR
from vq_reference.testing.laws.assertions import assert_within
from vq_reference.testing.laws.bounds import bounds
from vq_reference.testing.laws.expected.jacobian import jacobian
from vq_reference.testing.laws.expected.output_and_code import output_and_code
from vq_reference.testing.laws.law import law
from vq_reference.testing.laws.strategies.simvq_cases import cases

OORD = "van den Oord et al., arXiv 1711.00937, §3.2"


@law(
    "straight_through.output",
    level="must",
    source=OORD,
    needs={"estimator:straight_through", "indices"},
    case=cases("straight_through", REGULAR),
)
def test_the_straight_through_output_is_the_code(implementation, case):
    """With a straight-through gradient the output is the selected code, up to the rounding of x + (q − x)."""
    output, q = output_and_code(implementation, case)
    bound = bounds.straight_through_output(case.x, q, implementation.precision.unit_roundoff)
    assert_within("output", output, q, bound)


@law(
    "straight_through.identity",
    level="must",
    source=OORD,
    needs={"estimator:straight_through", "indices"},
    case=cases("straight_through", REGULAR),
)
def test_the_straight_through_gradient_is_handed_back_unchanged(implementation, case):
    """A straight-through estimator hands the gradient at the output to the input unchanged: J = I."""
    jac, _ = jacobian(implementation, case)
    assert_within("J", jac, np.eye(case.x.shape[1]), implementation.precision.unit_roundoff)
