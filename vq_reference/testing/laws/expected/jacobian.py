"""The whole Jacobian of a layer's output at its input, token by token, from one forward and D backwards."""

from __future__ import annotations

import numpy as np

from vq_reference.arguments import Array
from vq_reference.testing.interface.implementation import Cotangent, Implementation
from vq_reference.testing.interface.subjects import Case

FACTORS = np.array([1.0, -1.0, 2.0, -2.0])


def jacobian(implementation: Implementation, case: Case) -> tuple[Array, Array]:
    """Return J = ∂output/∂x, (N, D, D), zero where no gradient path leads, and the selected codes, (N, D).

    Row j of each token's J is the backward of output entry j. All tokens are asked at once, each for another entry and
    with another factor, which is a power of two or minus that: one that is handed its neighbour's gradient then shows.
    """
    count, dim = case.x.shape
    tokens = np.arange(count)
    factor = FACTORS[tokens // dim % len(FACTORS)][:, None]
    asked = (tokens + np.arange(dim)[:, None]) % dim  # (D, N): the entry that each backward starts from
    starts = [Cotangent(factor * np.eye(dim)[entries], 0.0) for entries in asked]
    answer = implementation.build(case.reference)(case.x, starts)
    rows = np.zeros((count, dim, dim))
    for entries, g in zip(asked, answer.gradients, strict=True):
        rows[tokens, entries] = 0.0 if g.x is None else g.x / factor
    if answer.indices is None:
        raise ValueError(f"{implementation.name} gives no indices: a law that asks for its Jacobian needs them")
    return rows, case.codes[answer.indices]
