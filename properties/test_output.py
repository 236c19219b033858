"""The value handed to the decoder is the selected code, whichever estimator carries the gradient."""

from dataclasses import replace

import numpy as np

from vq_reference.testing.interface.subjects import EXTREME, OPPOSITE, REGULAR, TRAINED
from vq_reference.testing.laws.assertions import assert_within
from vq_reference.testing.laws.bounds import bounds
from vq_reference.testing.laws.expected.output_and_code import output_and_code
from vq_reference.testing.laws.law import law
from vq_reference.testing.laws.strategies.simvq_cases import cases


def with_every_estimator(implementation, case):
    """Return the case once for each estimator that the implementation trains with."""
    declared = [e for e in TRAINED if f"estimator:{e}" in implementation.capabilities]
    return [replace(case, reference=replace(case.reference, estimator=e)) for e in declared]


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
