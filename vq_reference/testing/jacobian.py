"""The whole Jacobian of a layer's output at its input, token by token, from one forward and D backwards."""

from __future__ import annotations

import numpy as np

from vq_reference.arguments import Array
from vq_reference.testing.adapters.implementation import Cotangent, Implementation
from vq_reference.testing.strategies import Case


def jacobian(implementation: Implementation, case: Case) -> tuple[Array, Array]:
    """Return J = ∂output/∂x, (N, D, D), zero where no gradient path leads, and the selected codes, (N, D).

    Row j of each token's J is the backward of output entry j, asked for all tokens at once: they are independent.
    """
    count, dim = case.x.shape
    axes = [Cotangent(np.broadcast_to(axis, (count, dim)), 0.0) for axis in np.eye(dim)]
    answer = implementation.build(case.reference)(case.x, axes)
    rows = [np.zeros((count, dim)) if g.x is None else g.x for g in answer.gradients]
    if answer.indices is None:
        raise ValueError(f"{implementation.name} gives no indices: a law that asks for its Jacobian needs them")
    return np.stack(rows, axis=1), case.codes[answer.indices]
