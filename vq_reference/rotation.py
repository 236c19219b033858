"""The rotation of Fifty et al. (arXiv 2410.06424, §4.2): J = λR turns x onto q and stretches it to q's length.

R is the proper rotation that turns x̂ = x/‖x‖ onto q̂ = q/‖q‖ in their common plane and leaves the rest of space alone:

    R = I − 2ww' + 2q̂x̂',   w = (x̂ + q̂)/‖x̂ + q̂‖,   λ = ‖q‖/‖x‖

Written with the reflections H_v = I − 2vv', that is R = H_w H_x̂: two mirrors make a rotation. A pair of unit vectors
(a, b) with R = H_b H_a is all that is kept here, for R, its transpose and its matrix. Near opposite directions w is
lost to cancellation, so where x̂·q̂ ≤ 0 the mirrors are a ∝ x̂ − q̂, which alone takes x̂ to q̂, and b in the plane and
orthogonal to q̂, which leaves q̂ where it is: the same R, and orthogonal to rounding at every angle.

Degenerate inputs have a documented answer:

- x = 0 has no direction and no ratio: R = I and λ = 1, so that J = I as for straight-through.
- q = 0 has no direction: R = I; λ = 0, so J = 0.
- q̂ = −x̂ fixes no plane: R turns by π in the plane of x̂ and the coordinate axis on which q̂ has its smallest entry, the
  first such. In one dimension no proper rotation does that, and R = −1.
- λ is clamped to √(largest float64), about 1.3e154, so that λ·g is finite for every |g| up to the same number.
"""

from __future__ import annotations

import numpy as np

from vq_reference.arguments import Array, alike, vectors

LARGEST_RATIO = float(np.sqrt(np.finfo(np.float64).max))


def mirrors(x: Array, q: Array) -> tuple[Array, Array]:
    """Return unit vectors (a, b), each (N, D), with R = H_b H_a for each token.

    x, q: (N, D), finite. Source: §4.2, and the module's docstring for obtuse angles.
    """
    x = vectors("x", x)
    q = alike("q", q, x)
    x_hat, q_hat = _direction(x), _direction(q)
    nowhere = ~(np.any(x, axis=1, keepdims=True) & np.any(q, axis=1, keepdims=True))
    q_hat = np.where(nowhere, x_hat, q_hat)  # a zero vector turns nothing: R = I
    obtuse = np.sum(x_hat * q_hat, axis=1, keepdims=True) <= 0
    a = np.where(obtuse, _direction(x_hat - q_hat), x_hat)
    b = np.where(obtuse, _across(x_hat + q_hat, q_hat), _direction(x_hat + q_hat))
    return a, b


def rotate(x: Array, q: Array, v: Array) -> Array:
    """Return R v, token by token. x, q, v: (N, D); returns (N, D).

    >>> rotate(np.array([[2.0, 0.0]]), np.array([[0.0, 1.0]]), np.array([[0.0, 3.0]])).round(12)
    array([[-3.,  0.]])
    """
    a, b = mirrors(x, q)
    return _reflect(b, _reflect(a, alike("v", v, a)))


def rotate_back(x: Array, q: Array, g: Array) -> Array:
    """Return R'g, token by token. x, q, g: (N, D); returns (N, D)."""
    a, b = mirrors(x, q)
    return _reflect(a, _reflect(b, alike("g", g, a)))


def matrix(x: Array, q: Array) -> Array:
    """Return R itself, (N, D, D), for x and q of (N, D)."""
    a, b = mirrors(x, q)
    columns = [_reflect(b, _reflect(a, np.broadcast_to(axis, a.shape))) for axis in np.eye(a.shape[1])]
    return np.stack(columns, axis=2)


def ratio(x: Array, q: Array) -> Array:
    """Return λ = ‖q‖/‖x‖, (N, 1), clamped to LARGEST_RATIO; 1 where x = 0.

    >>> ratio(np.array([[3.0, 4.0], [0.0, 0.0]]), np.array([[0.0, 10.0], [1.0, 1.0]]))
    array([[2.],
           [1.]])
    """
    x = vectors("x", x)
    q = alike("q", q, x)
    (x_scaled, x_exponent), (q_scaled, q_exponent) = _scaled(x), _scaled(q)
    x_norm = np.linalg.norm(x_scaled, axis=1, keepdims=True)
    quotient = np.linalg.norm(q_scaled, axis=1, keepdims=True) / np.where(x_norm == 0, 1, x_norm)
    with np.errstate(over="ignore", under="ignore"):
        stretched = np.ldexp(quotient, q_exponent - x_exponent)
    return np.where(x_norm == 0, 1.0, np.minimum(stretched, LARGEST_RATIO))


def vjp(x: Array, q: Array, g: Array) -> Array:
    """Return λR'g, the vector-Jacobian product of x ↦ sg(λR)·x. x, q, g: (N, D); returns (N, D). Source: §4.2."""
    return np.asarray(ratio(x, q) * rotate_back(x, q, g))


def _reflect(mirror: Array, v: Array) -> Array:
    """H_a v = v − 2a(a'v)."""
    return np.asarray(v - 2 * mirror * np.sum(mirror * v, axis=1, keepdims=True))


def _scaled(v: Array) -> tuple[Array, Array]:
    """Return v·2^−e with largest entry in [½, 1), and e: (N, D), (N, 1). Exact; its squares stay in range."""
    _, exponent = np.frexp(np.max(np.abs(v), axis=1, keepdims=True))
    # in two steps, since 2^−e itself is not representable for a vector of subnormal numbers
    half = exponent // 2
    return np.ldexp(np.ldexp(v, -half), half - exponent), exponent


def _direction(v: Array) -> Array:
    """v/‖v‖, and the first coordinate axis for v = 0."""
    scaled, _ = _scaled(v)
    norm = np.linalg.norm(scaled, axis=1, keepdims=True)
    axis = np.eye(1, v.shape[1])
    return np.where(norm == 0, axis, scaled / np.where(norm == 0, 1, norm))


def _across(between: Array, q_hat: Array) -> Array:
    """Return the unit vector in the plane of x̂ + q̂ and q̂ that is orthogonal to q̂; 0 in one dimension, where none is.

    x̂ + q̂ loses no digit near opposite directions. Where it is no longer than the rounding errors of x̂ and q̂, the
    directions are opposite as far as float64 can tell, and the coordinate axis takes its place.
    """
    if q_hat.shape[1] == 1:
        return np.zeros_like(q_hat)
    axis = np.eye(q_hat.shape[1])[np.argmin(np.abs(q_hat), axis=1)]
    opposite = np.linalg.norm(between, axis=1, keepdims=True) <= q_hat.shape[1] * np.finfo(np.float64).eps
    rest = np.where(opposite, axis, between)
    # Twice: what the first pass leaves of a vector almost along q̂ is mostly rounding error.
    for _ in range(2):
        rest = _direction(rest)
        rest = rest - q_hat * np.sum(rest * q_hat, axis=1, keepdims=True)
    return _direction(rest)
