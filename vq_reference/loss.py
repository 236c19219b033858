"""The commitment loss in both halves (van den Oord et al., arXiv 1711.00937, eq. 3; Zhu et al., arXiv 2411.02038, §3):

    ℓ = w·( mean(sg(x) − q)² + β·mean(x − sg(q))² )

with means over all N·D entries. The first term is the codebook half: it trains the codebook, or the transform that
makes it. The second is the encoder half, commitment in the narrow sense: it trains the encoder. Both have the same
value, mean(x − q)², so the value of ℓ says nothing about which of them a gradient reaches.
"""

from __future__ import annotations

import numpy as np

from vq_reference.arguments import Array, alike, vectors, weight


def commitment_loss(x: Array, q: Array, beta: float = 0.25, commitment_weight: float = 1.0) -> float:
    """Return ℓ for x and q of (N, D); 0 for no tokens, inf where the mean square is beyond float64.

    Raises ValueError for a β or weight that is negative, NaN or infinite.

    >>> commitment_loss(np.array([[1.0, 3.0]]), np.array([[1.0, 1.0]]), beta=0.25)
    2.5
    """
    beta, commitment_weight = weight("beta", beta), weight("commitment_weight", commitment_weight)
    mean_square = _mean_square(_difference(x, q))
    if not commitment_weight:
        return 0.0  # also where the mean square is infinite
    codebook_half, encoder_half = mean_square, beta * mean_square if beta else 0.0
    return commitment_weight * (codebook_half + encoder_half)


def vjp(x: Array, q: Array, g: float = 1.0, beta: float = 0.25, commitment_weight: float = 1.0) -> tuple[Array, Array]:
    """Return the gradients of g·ℓ at x and at q, each (N, D).

    ∂ℓ/∂x = w·β·2(x − q)/(ND) comes from the encoder half alone, ∂ℓ/∂q = w·2(q − x)/(ND) from the codebook half alone.

    >>> at_x, at_q = vjp(np.array([[1.0, 3.0]]), np.array([[1.0, 1.0]]), beta=0.25)
    >>> at_x, at_q
    (array([[0. , 0.5]]), array([[-0., -2.]]))
    """
    beta, commitment_weight = weight("beta", beta), weight("commitment_weight", commitment_weight)
    difference = _difference(x, q)
    scale = 2 * g * commitment_weight / max(difference.size, 1)
    return scale * beta * difference, -scale * difference


def _difference(x: Array, q: Array) -> Array:
    x = vectors("x", x)
    with np.errstate(over="ignore"):
        return np.asarray(x - alike("q", q, x))


def _mean_square(difference: Array) -> float:
    """Mean of squares in which no square over- or underflows unless the mean itself does."""
    if not difference.size:
        return 0.0
    _, exponent = np.frexp(np.max(np.abs(difference)))
    with np.errstate(over="ignore", under="ignore"):
        return float(np.ldexp(np.mean(np.ldexp(difference, -exponent) ** 2), 2 * exponent))
