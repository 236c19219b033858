"""Decoding indices gives what the call gave."""

import numpy as np
from hypothesis import strategies as st

from vq_reference import cosine
from vq_reference.testing.laws.assertions import assert_within
from vq_reference.testing.laws.bounds import bounds
from vq_reference.testing.laws.law import law
from vq_reference.testing.laws.strategies.simvq_cases import cases, large_codebooks

USER = "what a user of any layer relies on"
CHOICE = {"indices"}


@law(
    "decode.output",
    level="must",
    source=USER,
    needs=CHOICE | {"decode"},
    case=cases() | large_codebooks(),
    seed=st.integers(0, 15),
)
def test_decoding_the_indices_gives_the_output(implementation, case, seed):
    """Decoding the returned indices gives the codes that the layer output: transform and projections included."""
    u = implementation.precision.unit_roundoff
    codes = cosine.unit(case.codes) if implementation.unit_codes else case.codes
    layer = implementation.build(case.reference)
    returned = layer(case.x).indices
    # squares and cubes lie in leading dimensions of one size, where a transposed answer has the right shape
    generator = np.random.default_rng(seed)
    others = [generator.integers(0, len(case.codes), count) for count in (4, 9, 8, 12)]
    for indices in (returned, *others):
        frozen, transform = case.reference.frozen_codebook[indices], case.reference.transform
        bound = bounds.decoded(frozen, transform, u)
        if implementation.unit_codes:  # which have been divided by their length, when they were set or now
            lengths = np.linalg.norm(case.codes[indices], axis=1, keepdims=True)
            bound = bound / lengths + bounds.direction(codes.shape[1], u)
        assert_within("decoded", layer.decode(indices), codes[indices], bound)
