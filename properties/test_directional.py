"""Directional reparameterization: what of a gradient reaches the input, and what the code."""

import dataclasses

import numpy as np

from vq_reference import directional, nearest
from vq_reference.testing.interface.subjects import start
from vq_reference.testing.laws.assertions import assert_within
from vq_reference.testing.laws.bounds import bounds, bounds_auxiliary
from vq_reference.testing.laws.law import law
from vq_reference.testing.laws.strategies.stateful_cases import subjects

SOURCE = "Vali et al., arXiv 2509.26469, figure 1"
NEEDS = {"lasting", "trained", "directional"}
SUBJECTS = subjects(learning="trained", metric="euclidean", parts="plain")


@law("directional.gradient", level="must", source=SOURCE, needs=NEEDS, subject=SUBJECTS)
def test_the_output_trains_the_code_along_the_way_to_it_and_the_input_across(implementation, subject):
    """Without noise the code gets d(d'g), what lies along its way from the input, and the input gets the rest of g."""
    u, x = implementation.precision.unit_roundoff, subject.x
    begin = start(x, (0.0,))
    layer = dataclasses.replace(subject.layer, estimator="directional")
    reply = implementation.lasting.build(dataclasses.replace(subject.wanted, layer=layer))(x, begin)
    codes, indices = layer.codes[0], reply.indices[:, 0]
    at_x, at_q = directional.vjp(x, codes[indices], np.zeros_like(x), begin.output)
    limit = bounds_auxiliary.directional_gradient(begin.output, u)
    assert reply.reached.x is not None, "no gradient reaches the input"
    assert_within("gradient at x", reply.reached.x, at_x, limit)
    ((_, at_codes),) = reply.reached.parameters.items()
    assert at_codes is not None, "no gradient reaches the codes"
    summed = bounds.codebook_gradient(at_q, indices, len(codes), u) + nearest.gather_vjp(indices, limit, len(codes))
    expected = nearest.gather_vjp(indices, at_q, len(codes))
    assert_within("gradient at the codes", at_codes.reshape(codes.shape), expected, summed)
