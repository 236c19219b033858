"""The cosine metric: tokens and codes are compared by direction, x̂ = x/‖x‖.

For unit vectors ‖x̂ − ĉ‖² = 2 − 2 x̂·ĉ, so the code of largest cosine is the nearest one. Everything after the choice
(the loss, the estimator, the output) is said of x̂ and the unit code as well, as ViT-VQGAN does (Yu et al., arXiv
2110.04627, §3.2). A vector of length 0 has no direction: x̂ = 0, and J = I.
"""

from __future__ import annotations

import numpy as np

from vq_reference.arguments import Array, alike, vectors


def unit(x: Array) -> Array:
    """Return x̂, (N, D), token by token.

    >>> unit(np.array([[3.0, 4.0], [0.0, 0.0]]))
    array([[0.6, 0.8],
           [0. , 0. ]])
    """
    scaled, _ = _scaled(vectors("x", x))
    return np.asarray(scaled / _length(scaled))


def unit_vjp(x: Array, g: Array) -> Array:
    """Return J'g with J = (I − x̂x̂')/‖x‖: the part of g across x, over the length of x. x, g: (N, D).

    >>> unit_vjp(np.array([[0.0, 2.0]]), np.array([[3.0, 5.0]]))
    array([[1.5, 0. ]])
    """
    scaled, scale = _scaled(vectors("x", x))
    length = _length(scaled)
    x_hat, g = scaled / length, alike("g", g, scaled)
    across = g - x_hat * np.sum(x_hat * g, axis=1, keepdims=True)
    return np.asarray(across / length / scale)


def _scaled(x: Array) -> tuple[Array, Array]:
    """Return x/s and s, (N, 1), the power of two that brings the largest entry into [½, 2): no square underflows."""
    _, exponent = np.frexp(np.max(np.abs(x), axis=1, keepdims=True))
    scale = np.ldexp(1.0, np.minimum(exponent, 1023))  # 2^1024 is not representable
    return x / scale, scale


def _length(x: Array) -> Array:
    """Return ‖x‖, (N, 1), and 1 where it is 0."""
    length = np.linalg.norm(x, axis=1, keepdims=True)
    return np.where(length == 0, 1, length)
