"""Codebook diversity: minus the entropy of how tokens spread over the codes, softly, so that it has a gradient.

    d_nk = ‖x_n − e_k‖    p_nk = softmax over k of −τ·d_nk    p̄_k = mean over n of p_nk    ℓ = Σ_k p̄_k log p̄_k = −H(p̄)

The entropy is Baevski et al.'s (wav2vec 2.0, arXiv 2006.11477, eq. 4, for one group and without its factor 1/K), of
a soft choice by distance: the nearest code has the largest share, hence the minus. ℓ is −log K where tokens spread
evenly, and rises to 0 where all of them choose one code and τ is large. The mean is over all tokens, so that it does
not matter how they are arranged, or in which order.

    ∂ℓ/∂d_nk = −τ/N · p_nk(log p̄_k − Σ_j p_nj log p̄_j)        ∂d_nk/∂x_n = (x_n − e_k)/d_nk = −∂d_nk/∂e_k

The derivative of p̄ log p̄ is log p̄ + 1, of which the 1 cancels: shares add up to 1. Where a token stands on a code,
d_nk = 0 has no derivative, and 0 is taken.
"""

from __future__ import annotations

import numpy as np

from vq_reference.arguments import Array, codes, vectors, weight


def diversity(x: Array, codebook: Array, temperature: float) -> float:
    """Return ℓ for tokens x, (N, D) with N ≥ 1, and codes (K, D). temperature: τ ≥ 0, by which distances are scaled.

    Raises ValueError for no tokens, which have no mean.

    >>> codes = np.array([[0.0], [8.0]])
    >>> print(f"{diversity(codes, codes, temperature=10.0):.6f}")
    -0.693147
    """
    _, _, _, log_mean = _shares(x, codebook, temperature)
    return float(np.sum(np.exp(log_mean) * log_mean))


def vjp(x: Array, codebook: Array, temperature: float, g: float = 1.0) -> tuple[Array, Array]:
    """Return the gradients of g·ℓ at x, (N, D), and at the codes, (K, D).

    A step against them takes the token away from the code that has it, that code from the token, the other one nearer:

    >>> at_x, at_codes = vjp(np.array([[1.0]]), np.array([[0.0], [4.0]]), temperature=1.0)
    >>> at_x.round(3), at_codes.round(3)
    (array([[-0.42]]), array([[0.21],
           [0.21]]))
    """
    difference, distance, log_share, log_mean = _shares(x, codebook, temperature)
    share = np.exp(log_share)
    centred = log_mean - np.sum(share * log_mean, axis=1, keepdims=True)
    at_distance = -g * temperature / len(share) * share * centred
    direction = difference / np.where(distance == 0, 1, distance)[:, :, None]
    pulls = at_distance[:, :, None] * direction
    return np.asarray(pulls.sum(axis=1)), np.asarray(-pulls.sum(axis=0))


def _shares(x: Array, codebook: Array, temperature: float) -> tuple[Array, Array, Array, Array]:
    """Return x_n − e_k (N, K, D), d (N, K), log p (N, K) and log p̄ (K,): in logarithms no share underflows."""
    codebook = codes("codebook", codebook)
    x = vectors("x", x, codebook.shape[1])
    if not len(x):
        raise ValueError(f"x has shape {x.shape}: expected at least one token")
    difference = x[:, None, :] - codebook[None, :, :]
    distance = np.linalg.norm(difference, axis=2)
    log_share = -weight("temperature", temperature) * distance
    log_share = log_share - np.logaddexp.reduce(log_share, axis=1, keepdims=True)
    return difference, distance, log_share, np.logaddexp.reduce(log_share, axis=0) - np.log(len(x))
