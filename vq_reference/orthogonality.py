"""Orthogonality of a codebook: how far its directions are from right angles (Shin et al., arXiv 2112.00384).

    ℓ = ‖Ê Ê' − I‖² / K² = (1/K²) Σ_{i≠j} (ê_i·ê_j)²,    ê_k = e_k/‖e_k‖

(eq. 2, where it is written as the mean of all squared cosines less the 1/K that those with i = j make.) 0 for codes at
right angles, up to 1 − 1/K for codes of one line; the lengths of codes have no part in it. With G = Ê Ê' − I

    ∂ℓ/∂Ê = 4GÊ/K²        ∂ℓ/∂e_k = (I − ê_k ê_k')/‖e_k‖ · (∂ℓ/∂Ê)_k

A code of length 0 has no direction, ê = 0: it is orthogonal to all others, and has a diagonal of its own left out.
"""

from __future__ import annotations

import numpy as np

from vq_reference import cosine
from vq_reference.arguments import Array, codes


def orthogonality(codebook: Array) -> float:
    """Return ℓ for codes (K, D), in any order.

    >>> orthogonality(np.array([[2.0, 0.0], [0.0, 5.0]])), orthogonality(np.array([[1.0], [-3.0]]))
    (0.0, 0.5)
    """
    return float(np.mean(_cosines(codebook) ** 2))


def vjp(codebook: Array, g: float = 1.0) -> Array:
    """Return the gradient of g·ℓ at the codes, (K, D).

    >>> vjp(np.array([[1.0, 0.0], [1.0, 0.0]])).tolist()  # along one line: a ridge, from which no step is better
    [[0.0, 0.0], [0.0, 0.0]]
    """
    at_directions = 4 * g / len(codebook) ** 2 * _cosines(codebook) @ cosine.unit(codebook)
    return np.asarray(cosine.unit_vjp(codebook, at_directions))


def _cosines(codebook: Array) -> Array:
    """Return ê_i·ê_j, (K, K), and 0 where i = j."""
    directions = cosine.unit(codes("codebook", codebook))
    cosines = directions @ directions.T
    np.fill_diagonal(cosines, 0.0)
    return np.asarray(cosines)
