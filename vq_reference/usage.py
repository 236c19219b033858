"""How many codes are in use: their share, and the perplexity of the choice, which counts rare ones for less.

With n_k the number of tokens that chose code k, and p_k = n_k/Σ n_k:

    usage = (1/K)·#{k: n_k > 0}        perplexity = exp(−Σ_k p_k log p_k)

Perplexity, the exponential of Shannon's entropy, is 1 where all tokens chose one code, and K where they chose all codes
equally often: the effective size of the codebook, which implementations have reported ever since that of van den Oord
et al. (arXiv 1711.00937). Neither has a gradient: they are counted from indices.
"""

from __future__ import annotations

import numpy as np

from vq_reference.arguments import Array


def counts(indices: Array, codebook_size: int) -> Array:
    """Return n_k, (K,), for integer indices of any shape and order; a negative one, that of padding, is not counted.

    Raises ValueError for an index of K or more, and where there is no token at all: nothing can be said of none.

    >>> counts(np.array([[0, 2], [2, -1]]), codebook_size=4)
    array([1, 0, 2, 0])
    """
    chosen = np.asarray(indices).ravel()
    chosen = chosen[chosen >= 0]
    if not len(chosen):
        raise ValueError("indices hold no token: expected at least one that is not negative")
    if chosen.max() >= codebook_size:
        raise ValueError(f"indices hold {chosen.max()}: expected less than codebook_size, {codebook_size}")
    return np.bincount(chosen, minlength=codebook_size)


def perplexity(indices: Array, codebook_size: int) -> float:
    """Return exp(−Σ p log p), from 1 to K.

    >>> round(perplexity(np.array([3, 1, 3, 1]), codebook_size=8), 12)
    2.0
    """
    n = counts(indices, codebook_size)
    p = n[n > 0] / n.sum()
    return float(np.exp(-np.sum(p * np.log(p))))


def usage(indices: Array, codebook_size: int) -> float:
    """Return the share of codes that a token chose, from 1/K to 1.

    >>> usage(np.array([3, 1, 3, 1]), codebook_size=8)
    0.25
    """
    return float(np.mean(counts(indices, codebook_size) > 0))
