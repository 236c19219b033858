"""Tolerances for codebooks that are moving averages, and for layers with projections and the cosine metric.

Notation and source as in `vq_reference.testing.bounds`. Each holds for every order of summation, so that twice of it is
what two arrangements of the same tokens (a mask, two processes, compiled code) may differ by.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from vq_reference import cosine, loss
from vq_reference.arguments import Array
from vq_reference.codebook import Layer
from vq_reference.testing.bounds import direction, gamma, mean_square
from vq_reference.vector_quantize import VectorQuantize


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


class LayerError(NamedTuple):
    """Bounds on the error of one forward and one backward of a `VectorQuantize`, entry by entry or by rows."""

    output: Array
    loss: float
    x: Array
    codes: Array
    parameters: float


def vector_quantize(layer: VectorQuantize, x: Array, g_output: Array, g_loss: float, u: float) -> LayerError:
    """Bound what a straight-through layer may be off by, the indices being the same. x, g_output: (N, dim), no mask.

    Stage by stage, with errors of vectors as lengths. δh: `affine`. δt: δh; with the cosine metric 2δh/‖h‖ + `unit`,
    since x ↦ x̂ stretches a small step by at most 2/‖h‖. δq: 0; `unit`. output: δq through W_out, and `affine`.
    loss: with d = t − q and off = δt + δq, a square is off by 2‖d‖·off + off², and `mean_square`.
    Gradient at t: γ of the sum g W_out, and eight roundings of s·d, s = 2wβ/(NHD), off by s·off. Back through x ↦ x̂:
    (I − x̂x̂')/‖h‖ is off by (4δt + 2δh/‖h‖ + 2γ_{D+6})/‖h‖, times the length of its argument. Back through W_in:
    its own sum, and the length of the error times that of a column of W_in.
    Gradient at a code: a sum over N·H terms of s/β·d, then back through c ↦ ĉ. parameters bounds the gradient at any
    entry of any parameter: beside the codes, sums over tokens of (gradient at h)'x and of g'q, with factors as above.
    """
    dim = layer.codes.shape[2]
    hidden = _affine(layer.project_in, x).reshape(-1, dim)
    length = np.linalg.norm(hidden, axis=1, keepdims=True)
    at_hidden = np.linalg.norm(affine(layer.project_in, x, u).reshape(-1, dim), axis=1, keepdims=True)
    tokens = cosine.unit(hidden) if layer.unit else hidden
    at_tokens = 2 * at_hidden / length + unit(dim, u) if layer.unit else at_hidden
    at_codes = unit(dim, u) if layer.unit else 0.0

    q = _selected(layer, x)
    rows = q.reshape(len(x), -1)
    weight_out = np.eye(rows.shape[1]) if layer.project_out is None else layer.project_out.weight
    output = affine(layer.project_out, rows, u) + at_codes * np.sum(np.abs(weight_out), axis=1)

    off = at_tokens + at_codes
    difference = np.linalg.norm(tokens - q, axis=1, keepdims=True)
    squares = np.sum(2 * difference * off + off**2) / q.size
    scale = layer.commitment_weight * ((1 if layer.trained else 0) + layer.beta)
    value = scale * squares + mean_square(q.size, u) * scale * float(np.mean((tokens - q) ** 2) + squares)

    loss_at_tokens, loss_at_q = loss.vjp(tokens, q, g_loss, layer.beta, layer.commitment_weight)
    per_entry = 2 * abs(g_loss) * layer.commitment_weight / q.size
    through_out = g_output if layer.project_out is None else g_output @ layer.project_out.weight
    g = through_out.reshape(q.shape) + loss_at_tokens
    sums = (np.abs(g_output) @ np.abs(weight_out)).reshape(q.shape) + np.abs(loss_at_tokens)
    g_error = np.linalg.norm(gamma(x.shape[1] + 10, u) * sums, axis=1, keepdims=True) + per_entry * layer.beta * off
    if layer.unit:
        turn = 4 * at_tokens + 2 * at_hidden / length + 2 * gamma(dim + 6, u)
        g_error = (g_error + turn * np.linalg.norm(g, axis=1, keepdims=True)) / length
        g = cosine.unit_vjp(hidden, g)
    g_rows = g.reshape(len(x), -1)
    weight_in = np.eye(g_rows.shape[1]) if layer.project_in is None else layer.project_in.weight
    by_token = np.linalg.norm(g_error.reshape(len(x), -1), axis=1, keepdims=True)
    at_x = by_token * np.linalg.norm(weight_in, axis=0) + gamma(g_rows.shape[1], u) * np.abs(g_rows) @ np.abs(weight_in)

    total = np.sum(np.linalg.norm(loss_at_q, axis=1)) * gamma(len(q) + 8, u) + per_entry * np.sum(off)
    code_length = np.linalg.norm(layer.codes, axis=2, keepdims=True)
    longest = np.sum(np.linalg.norm(loss_at_q, axis=1))
    if layer.unit:
        total = (total + (4 * unit(dim, u) + 2 * gamma(dim + 6, u)) * longest) / code_length

    # biases are weights of an input of 1
    entering, leaving = (np.hstack([np.abs(rows), np.ones((len(x), 1))]) for rows in (x, rows))
    head_errors = np.repeat(g_error.reshape(len(x), -1), dim, axis=1)
    at_in = (head_errors + gamma(len(x), u) * np.abs(g_rows)).T @ entering
    at_out = np.abs(g_output).T @ (gamma(len(x) + 1, u) * leaving + at_codes)
    largest = max(float(np.max(at_in)), float(np.max(at_out)), float(np.max(total)))
    return LayerError(output, value, at_x, np.broadcast_to(total, layer.codes.shape), largest)


def _affine(layer: Layer | None, x: Array) -> Array:
    if layer is None:
        return x
    return np.asarray(x @ layer.weight.T + (0 if layer.bias is None else layer.bias))


def _selected(layer: VectorQuantize, x: Array) -> Array:
    """Return the effective codes q, (N·H, D), that the oracle selects."""
    codes = np.stack([cosine.unit(c) if layer.unit else c for c in layer.codes])
    groups = np.arange(layer.heads) % len(codes)
    return np.asarray(codes[groups, layer.forward(x).indices].reshape(-1, codes.shape[2]))
