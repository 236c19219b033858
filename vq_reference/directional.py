"""Directional reparameterization: from x, go as far as the code is, in a direction that no gradient turns.

    out = x + ‖q − x‖·sg(n),   n = (q − x + v)/‖q − x + v‖,   v ~ N(0, σ²I)

(DiVeQ, Vali et al., arXiv 2509.26469, figure 1). The distance is differentiated, n is a constant. With the direction
d = (q − x)/‖q − x‖

    ∂out/∂x = I − nd',   ∂out/∂q = nd'        g ↦ g − d(n'g) at x,   d(n'g) at q

so that the gradient at the output trains the code too, and both parts add up to g. Without noise n = d: the output is
the code, x gets what of g lies across its way to the code, and the code what lies along it. If n is differentiated as
well, out = q for v = 0, and x gets nothing.

Degenerate inputs have a documented answer: where x = q there is no way to go, d = 0: x gets g, and q gets 0. Where the
noise undoes q − x exactly there is no direction, n = 0: the output is x.
"""

from __future__ import annotations

import numpy as np

from vq_reference import cosine
from vq_reference.arguments import Array, alike, vectors


def output(x: Array, q: Array, noise: Array) -> Array:
    """Return x + ‖q − x‖·n, (N, D). x, q, noise: (N, D), finite; noise is v as it was drawn.

    >>> output(np.array([[1.0, 1.0]]), np.array([[4.0, 5.0]]), np.array([[-3.0, 4.0]]))
    array([[1., 6.]])
    """
    x, way, direction = _way(x, q, noise)
    return np.asarray(x + np.linalg.norm(way, axis=1, keepdims=True) * direction)


def vjp(x: Array, q: Array, noise: Array, g: Array) -> tuple[Array, Array]:
    """Return the gradients at x and at q, each (N, D), for the gradient g at the output. x, q, noise, g: (N, D).

    >>> x, q, nothing = np.zeros((1, 2)), np.array([[2.0, 0.0]]), np.zeros((1, 2))
    >>> vjp(x, q, nothing, np.array([[3.0, 5.0]]))
    (array([[0., 5.]]), array([[3., 0.]]))
    """
    x, way, direction = _way(x, q, noise)
    g = alike("g", g, x)
    along = cosine.unit(way) * np.sum(direction * g, axis=1, keepdims=True)
    return np.asarray(g - along), np.asarray(along)


def _way(x: Array, q: Array, noise: Array) -> tuple[Array, Array, Array]:
    """Return x, q − x and n, each (N, D)."""
    x = vectors("x", x)
    way = alike("q", q, x) - x
    return x, way, cosine.unit(way + alike("noise", noise, x))
