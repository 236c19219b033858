"""What holds of frozen codes behind a transform that is trained."""

import numpy as np
from hypothesis import strategies as st

from vq_reference.testing.interface.implementation import Cotangent
from vq_reference.testing.laws.assertions import assert_within
from vq_reference.testing.laws.expected.commitment_loss import arrived, loss_of
from vq_reference.testing.laws.expected.two_parts import in_two_parts
from vq_reference.testing.laws.law import law
from vq_reference.testing.laws.strategies.simvq_cases import transform_cases

SIMVQ = "Zhu et al., arXiv 2411.02038, §3"
LOSS = {"loss", "indices"}


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
