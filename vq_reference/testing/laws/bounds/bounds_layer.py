"""Tolerances for one forward and one backward of a straight-through layer, stage by stage, the indices being the same.

Notation and source as in `laws.bounds.bounds`; h, t, q and their heads as in `vq_reference.vector_quantize`.
Errors of vectors are lengths, δ, one for each head of a token: (N·H, 1). As in `bounds_state`, each bound holds for
every order of summation, so that two arrangements of the same tokens may differ by twice of it. No token is masked.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from vq_reference import cosine, loss
from vq_reference.arguments import Array
from vq_reference.codebook import Layer
from vq_reference.testing.laws.bound_docs import note_calls
from vq_reference.testing.laws.bounds.bounds import gamma, mean_square
from vq_reference.testing.laws.bounds.bounds_state import affine, unit
from vq_reference.vector_quantize import VectorQuantize


class LayerError(NamedTuple):
    """Bounds on the error of one forward and one backward of a `VectorQuantize`, entry by entry.

    output, x: (N, dim). codes: (G, K, D), of the gradient at them. parameters: of that at any entry of any parameter.
    """

    output: Array
    loss: float
    x: Array
    codes: Array
    parameters: float


class Heads(NamedTuple):
    """Every head of every token, (N·H, D): h, t and q, and what each is off by."""

    hidden: Array
    off_hidden: Array
    tokens: Array
    off_tokens: Array
    codes: Array
    off_codes: float

    @property
    def off(self) -> Array:
        """δt + δq, (N·H, 1): what t − q is off by."""
        return self.off_tokens + self.off_codes


def vector_quantize(layer: VectorQuantize, x: Array, g_output: Array, g_loss: float, u: float) -> LayerError:
    """Bound what a layer may be off by, for the gradients g_output, (N, dim), at the output and g_loss at ℓ.

    >>> error = vector_quantize(VectorQuantize(np.ones((1, 1, 2))), np.zeros((1, 2)), np.ones((1, 2)), 0.0, 2.0**-24)
    >>> bool(error.x.max() < 20 * 2.0**-24)
    True
    """
    heads = heads_of(layer, x, u)
    at_hidden, off = hidden_gradient(layer, heads, g_output, g_loss, u)
    codes = codes_gradient(layer, heads, g_loss, u)
    weight_in, weight_out = weights_gradient(heads, x, at_hidden, off, g_output, u)
    largest = max(float(np.max(entries)) for entries in (weight_in, weight_out, codes))
    return LayerError(
        output(layer, heads, u), value(layer, heads, u), x_gradient(layer, at_hidden, off, u), codes, largest
    )


def heads_of(layer: VectorQuantize, x: Array, u: float) -> Heads:
    """Bound h, t and q. δh: `affine`. δt: δh, δq: 0. With the cosine metric δq: `unit`, δt: 2δh/‖h‖ + `unit`.

    Because x ↦ x̂ stretches no step by more than 2/‖h‖.
    """
    dim = layer.codes.shape[2]
    hidden = _affine(layer.project_in, x).reshape(-1, dim)
    off = np.linalg.norm(affine(layer.project_in, x, u).reshape(-1, dim), axis=1, keepdims=True)
    groups = np.arange(layer.heads) % len(layer.codes)
    codes = layer.codes[groups, layer.forward(x).indices].reshape(-1, dim)
    if not layer.unit:
        return Heads(hidden, off, hidden, off, codes, 0.0)
    rounded = unit(dim, u)
    length = np.linalg.norm(hidden, axis=1, keepdims=True)
    return Heads(hidden, off, cosine.unit(hidden), 2 * off / length + rounded, cosine.unit(codes), rounded)


def output(layer: VectorQuantize, heads: Heads, u: float) -> Array:
    """Bound the output, (N, dim): `affine`, and δq through W_out, that is δq Σ|W_out| along its rows."""
    q = heads.codes.reshape(-1, layer.heads * layer.codes.shape[2])
    through = np.sum(np.abs(_weight(layer.project_out, q.shape[1])), axis=1)
    return np.asarray(affine(layer.project_out, q, u) + heads.off_codes * through)


def value(layer: VectorQuantize, heads: Heads, u: float) -> float:
    """Bound ℓ. With d = t − q a square is off by 2‖d‖·off + off², off = δt + δq; and `mean_square` of what it is then.

    Both are multiplied by the factor of the mean square, w(1 + β), or wβ where codes are not trained.
    """
    d = np.linalg.norm(heads.tokens - heads.codes, axis=1, keepdims=True)
    squares = np.sum(2 * d * heads.off + heads.off**2) / heads.tokens.size
    return float(
        layer.weight_of_value
        * (squares + mean_square(heads.tokens.size, u) * (np.sum(d**2) / heads.tokens.size + squares))
    )


def hidden_gradient(
    layer: VectorQuantize, heads: Heads, g_output: Array, g_loss: float, u: float
) -> tuple[Array, Array]:
    """Return the gradient at h, (N·H, D), and what it is off by, a length: (N·H, 1).

    At t: g W_out + s·d, d = t − q, s = 2wβ/(NHD). A term passes the sum of dim products or the eight roundings of s·d,
    then the sum of both and one that hands it on: γ_{dim+10} of absolute values. s·d is off by s·off besides.
    Back through x ↦ x̂: (I − x̂x̂')/‖h‖ holds x̂ twice, ‖h‖ once, a sum of D and six more operations. It is off by
    (4δt + 2δh/‖h‖ + 2γ_{D+6})/‖h‖ times the length of its argument, half of which is for the products of errors.
    """
    shape, dim = heads.tokens.shape, layer.codes.shape[2]
    weight = _weight(layer.project_out, layer.heads * dim)
    at_tokens, _ = loss.vjp(heads.tokens, heads.codes, g_loss, layer.beta, layer.commitment_weight)
    g = (g_output @ weight).reshape(shape) + at_tokens
    absolute = (np.abs(g_output) @ np.abs(weight)).reshape(shape) + np.abs(at_tokens)
    summed = gamma(g_output.shape[1] + 10, u) * np.linalg.norm(absolute, axis=1, keepdims=True)
    off = summed + layer.beta * _per_entry(layer, heads, g_loss) * heads.off
    if not layer.unit:
        return g, off
    length = np.linalg.norm(heads.hidden, axis=1, keepdims=True)
    turn = 4 * heads.off_tokens + 2 * heads.off_hidden / length + 2 * gamma(dim + 6, u)
    off = (off + turn * np.linalg.norm(g, axis=1, keepdims=True)) / length
    return cosine.unit_vjp(heads.hidden, g), off


def x_gradient(layer: VectorQuantize, at_hidden: Array, off: Array, u: float) -> Array:
    """Bound the gradient at x, (N, dim): the error of that at h times a column of W_in, and the sum over H·D itself."""
    rows = at_hidden.reshape(-1, layer.heads * layer.codes.shape[2])
    weight = _weight(layer.project_in, rows.shape[1])
    by_token = np.linalg.norm(off.reshape(len(rows), -1), axis=1, keepdims=True)
    summed = gamma(rows.shape[1], u) * np.abs(rows) @ np.abs(weight)
    return np.asarray(by_token * np.linalg.norm(weight, axis=0) + summed)


def codes_gradient(layer: VectorQuantize, heads: Heads, g_loss: float, u: float) -> Array:
    """Bound the gradient at any code, (G, K, D), by that at a code which has all the tokens.

    A sum over N·H of s/β·d, eight roundings each, of which d is off by `off`. Back through c ↦ ĉ as through x ↦ x̂,
    with δq for δt and an exact ‖c‖.
    """
    dim = layer.codes.shape[2]
    _, at_codes = loss.vjp(heads.tokens, heads.codes, g_loss, layer.beta, layer.commitment_weight)
    longest = np.sum(np.linalg.norm(at_codes, axis=1))
    off = gamma(len(at_codes) + 8, u) * longest + _per_entry(layer, heads, g_loss) * np.sum(heads.off)
    if layer.unit:
        turn = 4 * heads.off_codes + 2 * gamma(dim + 6, u)
        off = (off + turn * longest) / np.linalg.norm(layer.codes, axis=2, keepdims=True)
    return np.broadcast_to(off, layer.codes.shape)


def weights_gradient(
    heads: Heads, x: Array, at_hidden: Array, off: Array, g_output: Array, u: float
) -> tuple[Array, Array]:
    """Bound the gradients at (W_in, b_in), (H·D, dim + 1), and at (W_out, b_out), (dim, H·D + 1).

    Sums over N tokens: γ_N of (gradient at h)'(x, 1), where the gradient is off by `off`; γ_{N+1} of g'(q, 1), where q
    is off by δq and g is rounded once.
    """
    count = len(x)
    one = np.ones((count, 1))
    rows = (np.abs(at_hidden) * gamma(count, u) + off).reshape(count, -1)
    leaving = np.hstack([np.abs(heads.codes.reshape(count, -1)), one])
    at_out = np.abs(g_output).T @ (gamma(count + 1, u) * leaving + heads.off_codes)
    return rows.T @ np.hstack([np.abs(x), one]), at_out


def _per_entry(layer: VectorQuantize, heads: Heads, g_loss: float) -> float:
    """Return s/β = 2w|g|/(NHD), by which an entry of t − q enters the gradient of ℓ."""
    return 2 * abs(g_loss) * layer.commitment_weight / heads.tokens.size


def _weight(layer: Layer | None, width: int) -> Array:
    return np.eye(width) if layer is None else layer.weight


def _affine(layer: Layer | None, x: Array) -> Array:
    if layer is None:
        return x
    return np.asarray(x @ layer.weight.T + (0 if layer.bias is None else layer.bias))


note_calls(__name__)
