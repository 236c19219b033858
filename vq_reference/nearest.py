"""The choice: i = argmin over k of ‖x − E_k‖, and q = E_i (van den Oord et al., arXiv 1711.00937, eq. 1)."""

from __future__ import annotations

import numpy as np

from vq_reference import arguments
from vq_reference.arguments import Array


def squared_distances(x: Array, codes: Array) -> Array:
    """Return ‖x_n − E_k‖², (N, K), from the differences themselves: nothing cancels, whatever offset both share.

    x: (N, D), codes: (K, D), both scaled by one power of two where a square would leave the range, so that the order is
    right for every finite input; the result is then scaled too.
    """
    codes = arguments.codes("codes", codes)
    x = arguments.vectors("x", x, codes.shape[1])
    _, exponent = np.frexp(max(np.max(np.abs(x), initial=0), np.max(np.abs(codes))))
    shift = 0 if abs(exponent) < 400 else -exponent
    difference = np.ldexp(x, shift)[:, None, :] - np.ldexp(codes, shift)[None, :, :]
    return np.asarray(np.sum(difference**2, axis=2))


def nearest(x: Array, codes: Array) -> Array:
    """Return the index of the nearest code, (N,) int64; of equally near ones the lowest.

    x: (N, D), codes: (K, D), finite. Raises ValueError for an empty codebook or widths that differ.

    >>> nearest(np.array([[0.9, 0.0], [0.5, 0.0]]), np.array([[0.0, 0.0], [1.0, 0.0]]))
    array([1, 0])
    """
    return np.asarray(np.argmin(squared_distances(x, codes), axis=1), dtype=np.int64)


def gather_vjp(indices: Array, g: Array, codebook_size: int) -> Array:
    """Return the gradient at the codebook, (K, D), for the gradient g at the gathered codes, (N, D): Σ over i_n = k."""
    gradient = np.zeros((codebook_size, g.shape[1]))
    np.add.at(gradient, indices, g)
    return gradient
