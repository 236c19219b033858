"""Two answers to one case that have to be the same, and answers that share no memory with the layer."""

from __future__ import annotations

import numpy as np

from vq_reference.arguments import Array
from vq_reference.testing.interface.implementation import Answer, Call, Implementation
from vq_reference.testing.interface.subjects import Case
from vq_reference.testing.laws.assertions import assert_within
from vq_reference.testing.laws.bounds import bounds
from vq_reference.testing.laws.expected.nearest import compared, decided


def of_directions(implementation: Implementation, case: Case, indices: Array) -> float:
    """Bound on how far apart two losses are because directions are what they compare, 0 where none may be.

    A difference d of two directions, each computed with the error ε of `bounds.direction` in either call, is off by
    δ = 4ε from the one to the other, and its square by 2‖d‖δ + δ².
    """
    if implementation.metric == "euclidean":
        return 0.0
    x, codes = compared(implementation, case)
    lengths = np.linalg.norm(x - codes[indices], axis=1)
    off = 4 * bounds.direction(x.shape[1], implementation.precision.unit_roundoff)
    terms = x.size if implementation.loss_reduction == "mean" else 1
    return float(sum(implementation.loss_weights(case.reference)) * np.sum(2 * lengths * off + off**2) / terms)


def assert_same_answer(implementation: Implementation, case: Case, first: Answer, second: Answer) -> None:
    """Two answers to the same question agree: the code exactly where it is decided, the output to rounding."""
    u = implementation.precision.unit_roundoff
    sure = decided(implementation, case)
    assert first.indices is not None
    q = case.codes[first.indices]
    assert_within("selected code", case.codes[second.indices][sure], q[sure], 0.0)
    bound = 2 * bounds.output(case.x, q, case.reference.estimator, u)
    assert_within("output", second.output[sure], first.output[sure], bound[sure])
    if first.loss is not None and second.loss is not None and sure.all():
        rounding = 2 * bounds.mean_square(case.x.size, u) * abs(first.loss)
        assert_within("ℓ", second.loss, first.loss, rounding + of_directions(implementation, case, first.indices))


def assert_nothing_is_shared(implementation: Implementation, case: Case, how: Call) -> None:
    """Overwrite an answer, and look at the layer and at its next answer."""
    layer = implementation.build(case.reference)
    first, before = layer(case.x, how=how), layer.state()
    layer.overwrite_returned()
    after = layer.state()
    for name in sorted(before):
        assert_within(f"{name}, once the answer is overwritten,", after[name], before[name], 0.0)
    assert_same_answer(implementation, case, first, layer(case.x, how=how))
