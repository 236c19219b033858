"""The value handed to the decoder is the selected code, whichever estimator carries the gradient."""

from dataclasses import replace

import numpy as np

from vq_reference.testing import bounds
from vq_reference.testing.jacobian import jacobian
from vq_reference.testing.law import law
from vq_reference.testing.measure import assert_within
from vq_reference.testing.strategies import EXTREME, OPPOSITE, REGULAR, TRAINED, cases

OORD = "van den Oord et al., arXiv 1711.00937, §3.2"
FIFTY = "Fifty et al., arXiv 2410.06424, §4.2"


def with_every_estimator(implementation, case):
    """Return the case once for each estimator that the implementation trains with."""
    declared = [e for e in TRAINED if f"estimator:{e}" in implementation.capabilities]
    return [replace(case, reference=replace(case.reference, estimator=e)) for e in declared]


def output_and_code(implementation, case):
    answer = implementation.build(case.reference)(case.x)
    return answer.output, case.codes[answer.indices]


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


@law(
    "rotation.output",
    level="must",
    source=FIFTY,
    needs={"estimator:rotation", "indices"},
    case=cases("rotation", REGULAR),
)
def test_the_rotation_does_not_change_the_output(implementation, case):
    """With the rotation trick the output is still the selected code, up to the rounding of λRx."""
    output, q = output_and_code(implementation, case)
    row = bounds.rotation(case.x, q, implementation.precision.unit_roundoff)[:, None]
    assert_within("output", output, q, row * np.linalg.norm(q, axis=1, keepdims=True))


@law(
    "output.extreme",
    level="should",
    source="q is representable: it is an entry of the codebook",
    needs={"indices", "estimator"},
    case=cases(places=OPPOSITE + EXTREME),
)
def test_the_output_is_the_code_however_extreme_the_input(implementation, case):
    """The output is the selected code to rounding of the code, for zero, tiny, huge and opposite inputs too."""
    row = bounds.stable_rotation(case.x.shape[1], implementation.precision.unit_roundoff)
    for each in with_every_estimator(implementation, case):
        output, q = output_and_code(implementation, each)
        bound = row * np.linalg.norm(q, axis=1, keepdims=True)
        assert_within(f"output with {each.reference.estimator}", output, q, bound)


@law(
    "output.one_dimension",
    level="should",
    source="nothing in the definition of a quantizer asks for a second dimension",
    needs={"indices", "estimator"},
    case=cases(places=REGULAR, dims=(1, 1)),
)
def test_one_dimension_is_enough(implementation, case):
    """Tokens of a single entry are quantized like any others: the output has the input's shape and holds the codes."""
    u = implementation.precision.unit_roundoff
    for each in with_every_estimator(implementation, case):
        output, q = output_and_code(implementation, each)
        rounding = bounds.straight_through_output(case.x, q, u) + bounds.stable_rotation(1, u) * np.abs(q)
        opposite = bounds.bisector_length(case.x, q)[:, None] == 0  # not for the rotation: that is output.extreme
        assert_within(f"output with {each.reference.estimator}", np.where(opposite, q, output), q, rounding)
