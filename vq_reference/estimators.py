"""How a gradient gets through the choice of a code, which has none of its own.

The value handed to the decoder is the code itself, whichever estimator is on. Only the vector-Jacobian product differs:

    straight_through   out = x + sg(q − x)          g ↦ g       van den Oord et al., arXiv 1711.00937, §3.2
    rotation           out = sg(λR)·x               g ↦ λR'g    Fifty et al., arXiv 2410.06424, §4.2
    directional        out = x + ‖q − x‖·sg(d)      g ↦ (I − dd')g at x, and dd'g at q: `directional` without noise
    none               out = q                      g ↦ 0 at x, and g at q
"""

from __future__ import annotations

from typing import Literal, get_args

import numpy as np

from vq_reference import directional, rotation
from vq_reference.arguments import Array, alike, vectors

Estimator = Literal["straight_through", "rotation", "directional", "none"]
ESTIMATORS: tuple[Estimator, ...] = get_args(Estimator)


def output(x: Array, q: Array) -> Array:
    """Return what the decoder gets: q, (N, D), bit for bit, for x and q of (N, D)."""
    return alike("q", q, vectors("x", x))


def vjp(x: Array, q: Array, g: Array, estimator: Estimator) -> tuple[Array, Array]:
    """Return the gradients at x and at q, each (N, D), for the gradient g at the output.

    x, q, g: (N, D), finite. Raises ValueError for an estimator that is none of ESTIMATORS.

    >>> vjp(np.array([[2.0, 0.0]]), np.array([[0.0, 1.0]]), np.array([[3.0, 5.0]]), "straight_through")[0]
    array([[3., 5.]])
    >>> vjp(np.array([[2.0, 0.0]]), np.array([[0.0, 1.0]]), np.array([[3.0, 5.0]]), "rotation")[0].round(12)
    array([[ 2.5, -1.5]])
    """
    x = vectors("x", x)
    q, g = alike("q", q, x), alike("g", g, x)
    nothing = np.zeros_like(g)
    if estimator == "straight_through":
        return g, nothing
    if estimator == "rotation":
        return rotation.vjp(x, q, g), nothing
    if estimator == "directional":
        return directional.vjp(x, q, nothing, g)
    if estimator == "none":
        return nothing, g
    raise ValueError(f"estimator is {estimator!r}: expected one of {', '.join(ESTIMATORS)}")
