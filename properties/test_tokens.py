"""Tokens do not see each other: neither a split of the batch nor an order of it changes what one gets."""

import numpy as np
from hypothesis import strategies as st

from vq_reference.testing.laws.assertions import assert_within
from vq_reference.testing.laws.bounds import bounds
from vq_reference.testing.laws.expected.nearest import decided
from vq_reference.testing.laws.law import law
from vq_reference.testing.laws.strategies.simvq_cases import cases, crowds

CHOICE = {"indices"}
together = (cases(most_codes=8) | crowds(offsets=(0.0, 10.0))).filter(lambda case: len(case.x) > 1)


@law("tokens.split", level="must", source="a layer acts on each token", needs=CHOICE, case=together, data=st.data())
def test_splitting_the_batch_changes_no_token(implementation, case, data):
    """A token's code and output do not depend on which other tokens are in the batch."""
    cut = data.draw(st.integers(1, len(case.x) - 1), label="first part's size")
    layer = implementation.build(case.reference)
    whole = layer(case.x)
    parts = [layer(case.x[:cut]), layer(case.x[cut:])]
    assert_tokens_unchanged(implementation, case, whole, parts, slice(None))


@law("tokens.permuted", level="must", source="a layer acts on each token", needs=CHOICE, case=together, data=st.data())
def test_permuting_the_tokens_permutes_the_outputs(implementation, case, data):
    """A token's code and output do not depend on where in the batch it stands."""
    order = np.array(data.draw(st.permutations(range(len(case.x))), label="order of the tokens"))
    layer = implementation.build(case.reference)
    assert_tokens_unchanged(implementation, case, layer(case.x), [layer(case.x[order])], np.argsort(order))


def assert_tokens_unchanged(implementation, case, whole, parts, back):
    """Compare one answer with another that was given in parts and in another order; `back` undoes the order."""
    u = implementation.precision.unit_roundoff
    sure = decided(implementation, case)
    indices = np.concatenate([part.indices for part in parts])[back]
    output = np.concatenate([part.output for part in parts])[back]
    q = case.codes[whole.indices]
    assert_within("selected code", case.codes[indices][sure], q[sure], 0.0)
    bound = 2 * bounds.output(case.x, q, case.reference.estimator, u)
    assert_within("output", output[sure], whole.output[sure], bound[sure])
