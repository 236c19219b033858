"""Tolerances for what trains codes beside the commitment loss: directional reparameterization, auxiliary terms.

Notation and source as in `laws.bounds.bounds`.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from vq_reference import cosine
from vq_reference.arguments import Array
from vq_reference.testing.laws.bound_docs import note_calls
from vq_reference.testing.laws.bounds.bounds import direction, gamma


def directional_output(x: Array, q: Array, u: float) -> Array:
    """Bound on |out − q|, entry by entry, (N, D), for x + d·‖q − x‖ without noise.

    An entry of q − x is off by u of itself, its quotient by a length and product with one by 2u more; each of the two
    lengths by γ_D/2 + u, and by u for the entries that they are of. All of it is relative to |q − x|. Adding x rounds
    what is about q: u|q|.
    """
    off = gamma(x.shape[1] + 7, u) * np.abs(q - x)
    return np.asarray((1 + u) * off + u * np.abs(q))


def directional_gradient(g: Array, u: float) -> Array:
    """Bound on the gradients at x and at q, (N, D), for the gradient g at the output, without noise.

    d is `direction` of a difference whose entries are off by u of themselves, which turns it by at most u: ε together.
    It occurs twice. d'g is a sum of D products, γ_D; twice it is multiplied, and once it is subtracted from g, which is
    no shorter than any of the parts: 3u‖g‖. c/(1 − c) covers the products of errors.
    """
    dim = g.shape[1]
    total = 2 * (direction(dim, u) + u) + gamma(dim, u) + 3 * u
    lengths = total / (1 - total) * np.linalg.norm(g, axis=1, keepdims=True)
    return np.broadcast_to(lengths, g.shape)


class TermError(NamedTuple):
    """Bounds on what a term of tokens and codes may be off by: its value, its gradient at x, and at the codes."""

    value: float
    x: Array
    codes: Array


def diversity(x: Array, codes: Array, temperature: float, u: float) -> TermError:
    """Bound on ℓ = Σ p̄ log p̄ and its gradients, whether distances are those of differences or of expanded squares.

    No token stands on a code. d: its square is off by γ_{D+2}(‖x‖² + 2|x|'|e| + ‖e‖²) by expansion, more than by
    differences; relative to d² that is κ, of which d and 1/d take at most κ and κ/(1 − κ). Exponents, τd less the
    largest and less the logarithm of a sum, are off by τκd and by four roundings of what they are at most, 4u(2τ·max d
    + log KN): α. A share p is off by e^α of its own and by that of the sum it is divided by, a mean of all e^α with
    weights p, and by γ_{K+8}: ρ. The mean of shares: by the mean of their errors and γ_{N+8}, ρ̄; its logarithm by
    ρ̄/(1 − ρ̄) = ρ'. Value: each p̄ log p̄ by p̄(|log p̄|ρ̄ + (1 + ρ̄)ρ'), and a sum of K.
    Gradient at d: τ/N·p(c − Σ p c) with c = log p̄ + 1, of terms as large as τ/N·p(|c| + Σ p|c|). p and p̄ may occur
    twice, c once: η, of which the largest counts, since the sum is over all codes. Times (x − e)/d, or taken as two
    sums of x/d and of e/d, over K codes or N tokens.
    Slack, since it adds up five stages as if all erred one way: right code was seen at 0.01, its gradient at 0.004.
    """
    size, count, dim = len(codes), len(x), x.shape[1]
    difference = np.abs(x[:, None, :] - codes[None, :, :])
    reach = np.abs(x)[:, None, :] + np.abs(codes)[None, :, :]
    distance = np.linalg.norm(difference, axis=2)
    kappa = gamma(dim + 2, u) * np.sum(reach**2, axis=2) / distance**2 + u
    exponents = 2 * temperature * distance.max() + np.log(size * count)
    alpha = np.expm1(temperature * kappa * distance + 4 * u * exponents)

    log_share = -temperature * distance
    share = np.exp(log_share - np.logaddexp.reduce(log_share, axis=1, keepdims=True))
    rho = _together(alpha, np.sum(share * alpha, axis=1, keepdims=True), gamma(size + 8, u))
    mean = share.mean(axis=0)
    rho_mean = _together(np.mean(share * rho, axis=0) / mean, gamma(count + 8, u) + 4 * u * exponents)
    rho_log = rho_mean / (1 - rho_mean)
    entropy = np.abs(np.log(mean))
    value = np.sum(mean * (entropy * (rho_mean + gamma(size + 4, u)) + (1 + rho_mean) * rho_log))

    eta = np.max(_together(rho, rho, rho_mean, rho_mean, rho_log, gamma(size + 16, u)), axis=1, keepdims=True)
    c = entropy + 1
    per_distance = temperature / count * share * (c + np.sum(share * c, axis=1, keepdims=True)) / distance
    stretch = (eta + kappa) / (1 - kappa)
    off = (per_distance * stretch)[:, :, None] * difference
    summed = (per_distance * (1 + stretch))[:, :, None] * reach
    return TermError(
        float(value),
        np.sum(off + gamma(size + 6, u) * summed, axis=1),
        np.sum(off + gamma(count + 6, u) * summed, axis=0),
    )


def _together(*relative: Array | float) -> Array:
    """Return what several relative errors make together, Π(1 + ε) − 1, without losing the digits of small ones."""
    return np.asarray(np.expm1(sum(np.log1p(error) for error in relative)))


def sharp_diversity(tokens: int, codes: int, used: int, u: float) -> float:
    """Bound on ℓ where each token has one code to itself and `used` of them have as many each: ℓ = −log(used).

    A share is 1 or 0, whatever its distance is off by. Their mean is a sum of N and a quotient, its logarithm and the
    product with it round three times, and K of them are added: relative to p̄|log p̄| and to p̄, for the logarithm.
    """
    return float(gamma(tokens + codes + 8, u) * (np.log(used) + 1))


def orthogonality(codes: Array, u: float) -> tuple[float, Array]:
    """Bound on ℓ = (1/K²) Σ_{i≠j} (ê_i·ê_j)² and its gradient, (K, D), no code of which is 0.

    It may be taken as the mean of all squares less 1/K, which adds K numbers of about 1. ê is `direction`, ε; a cosine
    is off by δ = 2ε + γ_D, its square by 2|c|δ + δ², and the sum of K² of them by γ. Gradient at ê_i: a sum of K terms
    c ê of size A = 4/K² Σ_j |c_ij|, off by A(ε + γ_{K+6}) and by δ for each c. Across ê_i, over ‖e_i‖: a difference of
    the vector and of its part along ê_i, which holds ê_i twice, a sum of D products and eight more roundings.
    """
    size, dim = codes.shape
    directions = cosine.unit(codes)
    cosines = np.abs(directions @ directions.T)
    epsilon = direction(dim, u) + u
    delta = 2 * epsilon + gamma(dim, u)
    value = float(np.mean(2 * cosines * delta + delta**2) + gamma(size**2 + 4, u) * np.mean((cosines + delta) ** 2))

    at_direction = 4 / size**2 * cosines.sum(axis=1)
    off = at_direction * (epsilon + gamma(size + 6, u)) + 4 / size * delta
    across = off + (at_direction + off) * (2 * epsilon + gamma(dim, u) + gamma(8, u))
    rows = across / np.linalg.norm(codes, axis=1)
    return value, np.broadcast_to(rows[:, None], codes.shape)


def perplexity(shares: Array, u: float) -> float:
    """Bound on exp(−Σ p log p), (K,) shares p without 0: of p by u and of its logarithm by u more, a sum of K, exp.

    p log p is off by p(|log p|γ_4 + 2u), a sum of K of them by γ_K; what H is off by is what its exponential is off by
    relative to itself, with two roundings of its own.
    """
    size = shares * np.abs(np.log(shares))
    off = float(np.sum(size * gamma(len(shares) + 4, u) + 2 * u * shares))
    return float(np.exp(size.sum()) * np.expm1(off + np.log1p(gamma(2, u))))


note_calls(__name__)
