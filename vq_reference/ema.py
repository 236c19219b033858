"""A codebook that follows its tokens: exponential moving averages (van den Oord et al., arXiv 1711.00937, A.1).

n_k is the number of tokens that chose code k in a step, s_k their sum, γ the decay:

    N_k ← γN_k + (1 − γ)n_k        m_k ← γm_k + (1 − γ)s_k        e_k = m_k / Ñ_k

Ñ_k is N_k with Laplace smoothing, Ñ_k = (N_k + ε)/(N + Kε)·N with N = Σ N_k: no code divides by 0, and Σ Ñ_k = N.

What the paper leaves open, and what is taken here:

- A code that no token chose stays where it is. The formula with ε > 0 would shrink it towards 0, step by step, as N_k
  falls below ε. With ε = 0 both say the same.
- A step without any token is no step: N and m stay.
- A code that is placed (at the start, from data, or in place of a dead one) gets N_k = F and m_k = F·e_k, with
  F = max(1, τ/γ²) for a code that is replaced when N_k < τ: m_k/N_k is the code, and N_k ≥ τ after an unused step.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from vq_reference import arguments
from vq_reference.arguments import Array


@dataclass(frozen=True)
class Statistics:
    """What a codebook remembers of its tokens: counts N (K,) and sums m (K, D)."""

    counts: Array
    sums: Array


def of_batch(tokens: Array, indices: Array, codebook_size: int) -> Statistics:
    """Return n and s of one step. tokens: (N, D). indices: (N,) int; a negative one belongs to no code.

    >>> of_batch(np.array([[1.0], [2.0], [4.0]]), np.array([1, 1, -1]), codebook_size=2)
    Statistics(counts=array([0., 2.]), sums=array([[0.],
           [3.]]))
    """
    belongs = np.asarray(indices)[:, None] == np.arange(codebook_size)
    return Statistics(belongs.sum(axis=0).astype(np.float64), belongs.T @ np.where(belongs.any(1)[:, None], tokens, 0))


def average(before: Statistics, batch: Statistics, decay: float) -> Statistics:
    """Return N and m after a step; as before when the step has no token. Raises ValueError for γ outside (0, 1].

    >>> average(Statistics(np.array([1.0]), np.array([[4.0]])), Statistics(np.array([2.0]), np.array([[2.0]])), 0.5)
    Statistics(counts=array([1.5]), sums=array([[3.]]))
    """
    if not 0 < decay <= 1:
        raise ValueError(f"decay is {decay}: expected more than 0 and at most 1")
    if not batch.counts.any():
        return before
    counts = decay * before.counts + (1 - decay) * batch.counts
    return Statistics(counts, decay * before.sums + (1 - decay) * batch.sums)


def unrolled(start: Statistics, batches: Sequence[Statistics], decay: float) -> Statistics:
    """Return N and m after T steps, none empty, without recursion: γ^T·N + (1 − γ) Σ_t γ^(T − 1 − t) n_t, and m alike.

    >>> unrolled(Statistics(np.array([1.0]), np.array([[4.0]])), [Statistics(np.array([2.0]), np.array([[2.0]]))], 0.5)
    Statistics(counts=array([1.5]), sums=array([[3.]]))
    """
    steps = len(batches)
    weights = (1 - decay) * decay ** np.arange(steps - 1, -1, -1.0)
    counts = decay**steps * start.counts + sum(w * b.counts for w, b in zip(weights, batches, strict=True))
    sums = decay**steps * start.sums + sum(w * b.sums for w, b in zip(weights, batches, strict=True))
    return Statistics(counts, sums)


def smoothed(counts: Array, epsilon: float) -> Array:
    """Return Ñ, (K,), for counts N, (K,), not all 0.

    >>> smoothed(np.array([3.0, 0.0]), epsilon=0.5)
    array([2.625, 0.375])
    """
    epsilon = arguments.weight("epsilon", epsilon)
    total = counts.sum()
    return np.asarray((counts + epsilon) / (total + len(counts) * epsilon) * total)


def codes(before: Array, after: Statistics, batch: Statistics, epsilon: float) -> Array:
    """Return the codes, (K, D), after a step: m/Ñ where a token chose the code, and where it was before elsewhere."""
    used = batch.counts > 0
    moved = after.sums[used] / smoothed(after.counts, epsilon)[used, None]
    result = np.array(before, dtype=np.float64)
    result[used] = moved
    return result


def placed(codes: Array, decay: float, replace_below: float) -> Statistics:
    """Return the statistics of codes that have just been placed, F and F·e. codes: (K, D)."""
    fresh = max(1.0, arguments.weight("replace_below", replace_below) / decay**2)
    return Statistics(np.full(len(codes), fresh), fresh * codes)
