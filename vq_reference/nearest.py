"""The choice: i = argmin over k of ‖x − E_k‖, and q = E_i (van den Oord et al., arXiv 1711.00937, eq. 1)."""

from __future__ import annotations

import numpy as np

from vq_reference import arguments
from vq_reference.arguments import Array


def distances(x: Array, codes: Array) -> Array:
    """Return s·‖x_n − E_k‖, (N, K), from the differences themselves: nothing cancels, whatever offset both share.

    x: (N, D), codes: (K, D). s is 1, or a power of two where a distance might overflow or be subnormal. Each
    difference is scaled by its own largest entry before it is squared, so that the order is right for every finite
    input, a short distance beside a long one included. Only beside an entry of 2^1021/D or more, where s may be less
    than 1, subnormal distances lose their last digits.
    """
    codes = arguments.codes("codes", codes)
    x = arguments.vectors("x", x, codes.shape[1])
    _, exponent = np.frexp(max(np.max(np.abs(x), initial=0), np.max(np.abs(codes))))
    room = np.finfo(np.float64).maxexp - codes.shape[1].bit_length() - 2
    shift = -int(exponent) if exponent < -room // 2 else min(0, room - int(exponent))
    difference = np.ldexp(x, shift)[:, None, :] - np.ldexp(codes, shift)[None, :, :]
    _, exponents = np.frexp(np.max(np.abs(difference), axis=2))
    half = exponents // 2  # in two steps: 2^−e itself is not representable for a subnormal difference
    scaled = np.ldexp(np.ldexp(difference, -half[:, :, None]), (half - exponents)[:, :, None])
    return np.asarray(np.ldexp(np.sqrt(np.sum(scaled**2, axis=2)), exponents))


def nearest(x: Array, codes: Array) -> Array:
    """Return the index of the nearest code, (N,) int64; of equally near ones the lowest.

    x: (N, D), codes: (K, D), finite. Raises ValueError for an empty codebook or widths that differ.

    >>> nearest(np.array([[0.9, 0.0], [0.5, 0.0]]), np.array([[0.0, 0.0], [1.0, 0.0]]))
    array([1, 0])
    """
    return np.asarray(np.argmin(distances(x, codes), axis=1), dtype=np.int64)


def gather_vjp(indices: Array, g: Array, codebook_size: int) -> Array:
    """Return the gradient at the codebook, (K, D), for the gradient g at the gathered codes, (N, D): Σ over i_n = k."""
    gradient = np.zeros((codebook_size, g.shape[1]))
    np.add.at(gradient, indices, g)
    return gradient
