"""Tolerances for codebooks that are moving averages, for projections and for the cosine metric.

Notation and source as in `laws.bounds.bounds`. Each holds for every order of summation, so that twice of it is
what two arrangements of the same tokens (a mask, two processes, compiled code) may differ by.
"""

from __future__ import annotations

import numpy as np

from vq_reference.arguments import Array
from vq_reference.codebook import Layer
from vq_reference.testing.laws.bound_docs import note_calls
from vq_reference.testing.laws.bounds.bounds import direction, gamma


def ema_counts(counts: Array, steps: int, u: float) -> Array:
    """Bound on |fl(N) − N|, (K,), for N after `steps` steps from placed codes.

    F is a quotient that is then rounded: 3u. A step γN + (1 − γ)n rounds γ, 1 − γ (a difference, then itself), two
    products and a sum: at most 6u. All terms are positive, and n is exact.
    """
    return np.asarray(gamma(3 + 6 * steps, u) * counts)


def ema_sums(absolute: Array, tokens: int, steps: int, u: float) -> Array:
    """Bound on |fl(m) − m|, (K, D). absolute: what m would be if all numbers were replaced by their absolute values.

    As `ema_counts`, with the product F·e and a sum over the tokens of a step (at most `tokens`) more: 1 + tokens.
    """
    return np.asarray(gamma(4 + 6 * steps + tokens, u) * absolute)


def ema_codes(absolute: Array, smoothed: Array, tokens: int, steps: int, u: float) -> Array:
    """Bound on |fl(m/Ñ) − m/Ñ|, (K, D), absolute as in `ema_sums`, smoothed Ñ, (K,).

    Ñ = (N_k + ε)/(N + Kε)·N holds N_k once and the sum of K counts twice, 3(3 + 6T) + 2K, and nine operations: ε twice,
    Kε, two sums, K itself, a quotient, a product, and the quotient m/Ñ.
    """
    counts, codebook_size = 3 + 6 * steps, len(smoothed)
    roundings = 3 * counts + 2 * codebook_size + 9 + (4 + 6 * steps + tokens)
    return np.asarray(gamma(roundings, u) * absolute / smoothed[:, None])


def ema_first_step(most: Array, tokens: int, codebook_size: int, decay: float, epsilon: float, u: float) -> Array:
    """Bound, (K, D), on what codes exceed `most`, (D,), by: the largest entries of codes and tokens before a step.

    Where m_k is N_k times a code, and N_k ≥ 0, |m_k| ≤ N_k·most holds after the step as before. So, with Laplace
    smoothing, |m_k/Ñ_k| ≤ most·N_k/(N_k + ε)·(N + Kε)/N ≤ most·(1 + Kε/N), and N ≥ (1 − γ)·tokens, whatever counts
    began with. That fits counts that begin at 1 with sums that are the codes, both at 0 where a code without tokens
    is left alone or becomes 0, averages rid of the bias of their start, where N = tokens, and codes that are replaced
    or taken from data, which are tokens or means of them. Rounding: `ema_codes`.
    """
    share = codebook_size * epsilon / ((1 - decay) * tokens)
    rounding = ema_codes((most * (1 + share))[None], np.ones(codebook_size), tokens, 1, u)
    return np.asarray(rounding + most * share)


def affine(layer: Layer | None, x: Array, u: float) -> Array:
    """Bound on |fl(x W' + b) − (x W' + b)|, entry by entry: γ_{F+1}(|x||W|' + |b|) for inputs of width F."""
    if layer is None:
        return np.zeros_like(x)
    absolute = np.abs(x) @ np.abs(layer.weight).T + (0 if layer.bias is None else np.abs(layer.bias))
    return np.asarray(gamma(x.shape[1] + 1, u) * absolute)


def unit(dim: int, u: float) -> float:
    """Bound on ‖fl(x̂) − x̂‖: `direction`, and a division by the largest entry before it."""
    return direction(dim, u) + u


note_calls(__name__)
