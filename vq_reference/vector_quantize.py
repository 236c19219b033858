"""A vector quantizer with all that surrounds the choice: projections, heads, the cosine metric, a mask.

    h = x W_in' + b_in        H parts of each h are its heads        t = h, or ĥ with the cosine metric
    q = the nearest code of each t        out = [q of all heads] W_out' + b_out

One codebook serves all heads, or each head has its own. A token under the mask (False) takes no part: no gradient
reaches it, its output is 0, its indices are −1, and means are over the tokens that are left.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from vq_reference import arguments, cosine, estimators, loss, nearest
from vq_reference.arguments import Array
from vq_reference.codebook import Layer, LayerGradient
from vq_reference.estimators import Estimator


@dataclass(frozen=True)
class Quantized:
    """What one forward gives: output (N, dim), indices (N, H) int64, loss a number."""

    output: Array
    indices: Array
    loss: float


@dataclass(frozen=True)
class Gradients:
    """What one backward gives: at x (N, dim), at the raw codes (G, K, D), at the projections, None where none is."""

    x: Array
    codes: Array
    project_in: LayerGradient | None
    project_out: LayerGradient | None


@dataclass(frozen=True)
class VectorQuantize:
    """A layer of H heads with raw codes of (G, K, D): G = H for separate codebooks, G = 1 for a shared one.

    trained: gradients reach the codes, and the codebook half of the loss is there. Without it ℓ = w·β·mean(x − sg(q))².
    unit: tokens and codes are divided by their lengths, for the choice, the output and the loss alike.
    by_direction: only the choice compares directions; what is handed on is the code as it is.
    value_weight: c where the loss has the value c·mean(x − q)² and not that of its halves; its gradients are theirs.

    >>> layer = VectorQuantize(np.array([[[0.0], [4.0]]]), heads=2)
    >>> layer.forward(np.array([[1.0, 3.0], [9.0, 9.0]]), mask=np.array([True, False]))
    Quantized(output=array([[0., 4.],
           [0., 0.]]), indices=array([[ 0,  1],
           [-1, -1]]), loss=0.25)
    """

    codes: Array
    heads: int = 1
    project_in: Layer | None = None
    project_out: Layer | None = None
    unit: bool = False
    trained: bool = False
    estimator: Estimator = "straight_through"
    beta: float = 0.25
    commitment_weight: float = 1.0
    by_direction: bool = False
    value_weight: float | None = None

    @property
    def weight_of_value(self) -> float:
        """The factor of mean(x − q)² in the value of the loss."""
        if self.value_weight is not None:
            return self.value_weight
        return self.commitment_weight * (self.beta + (1.0 if self.trained else 0.0))

    def forward(self, x: Array, mask: Array | None = None) -> Quantized:
        """Quantize x, (N, dim); mask: (N,) bool."""
        valid = _valid(x, mask)
        tokens = self._tokens(x[valid])
        chosen, q = self._choose(tokens)
        out = _affine(self.project_out, self._rows(q))
        output = np.zeros((len(x), out.shape[1]))
        output[valid] = out
        indices = np.full((len(x), self.heads), -1)
        indices[valid] = chosen
        return Quantized(output, indices, loss.commitment_loss(tokens, q, 0.0, self.weight_of_value))

    def gradients(self, x: Array, g_output: Array, g_loss: float, mask: Array | None = None) -> Gradients:
        """Return the gradients of ⟨g_output, output⟩ + g_loss·ℓ, the indices held fixed. g_output: (N, dim)."""
        valid = _valid(x, mask)
        hidden = self._hidden(x[valid])
        tokens = self._tokens(x[valid])
        chosen, q = self._choose(tokens)

        g = g_output[valid]
        at_out, g = _affine_vjp(self.project_out, self._rows(q), g)
        at_tokens, at_q = estimators.vjp(tokens, q, g.reshape(tokens.shape), self.estimator)
        loss_at_tokens, loss_at_q = loss.vjp(tokens, q, g_loss, self.beta, self.commitment_weight)
        at_hidden = at_tokens + loss_at_tokens
        if self.unit:
            at_hidden = cosine.unit_vjp(hidden, at_hidden)
        at_in, at_x = _affine_vjp(self.project_in, x[valid], self._rows(at_hidden))
        gradient_at_x = np.zeros_like(x, dtype=np.float64)
        gradient_at_x[valid] = at_x
        return Gradients(gradient_at_x, self._codes_vjp(chosen, at_q + loss_at_q), at_in, at_out)

    def _hidden(self, x: Array) -> Array:
        """Return the heads of h one below the other, (N·H, D): those of a token are neighbours."""
        return _affine(self.project_in, x).reshape(-1, self.codes.shape[2])

    def _rows(self, heads: Array) -> Array:
        """Return (N·H, D) as (N, H·D)."""
        return heads.reshape(-1, self.heads * self.codes.shape[2])

    def _tokens(self, x: Array) -> Array:
        return cosine.unit(self._hidden(x)) if self.unit else self._hidden(x)

    def _effective(self, group: int) -> Array:
        return cosine.unit(self.codes[group]) if self.unit else self.codes[group]

    def _choose(self, tokens: Array) -> tuple[Array, Array]:
        """Return indices (N, H) and codes (N·H, D) for tokens (N·H, D)."""
        by_head = tokens.reshape(-1, self.heads, tokens.shape[1])
        indices = np.zeros(by_head.shape[:2], dtype=np.int64)
        q = np.zeros_like(by_head)
        for head in range(self.heads):
            t, codes = by_head[:, head], self._effective(head % len(self.codes))
            compared = (cosine.unit(t), cosine.unit(codes)) if self.by_direction else (t, codes)
            indices[:, head] = nearest.nearest(*compared)
            q[:, head] = codes[indices[:, head]]
        return indices, q.reshape(tokens.shape)

    def _codes_vjp(self, indices: Array, at_q: Array) -> Array:
        """Return the gradient at the raw codes, (G, K, D), for that at q, (N·H, D)."""
        gradient = np.zeros_like(self.codes, dtype=np.float64)
        by_head = at_q.reshape(-1, self.heads, at_q.shape[1])
        for head in range(self.heads if self.trained else 0):
            group = head % len(self.codes)
            at_codes = nearest.gather_vjp(indices[:, head], by_head[:, head], self.codes.shape[1])
            gradient[group] += cosine.unit_vjp(self.codes[group], at_codes) if self.unit else at_codes
        return gradient


def _valid(x: Array, mask: Array | None) -> Array:
    if mask is None:
        return np.ones(len(x), dtype=bool)
    if mask.shape != (len(x),) or mask.dtype != bool:
        raise ValueError(f"mask is {mask.dtype} of {mask.shape}: expected bool of {(len(x),)}, one for each token")
    return mask


def _affine(layer: Layer | None, x: Array) -> Array:
    """Return x W' + b; x itself where there is no layer."""
    x = arguments.vectors("x", x)
    if layer is None:
        return x
    return np.asarray(x @ layer.weight.T + (0 if layer.bias is None else layer.bias))


def _affine_vjp(layer: Layer | None, x: Array, g: Array) -> tuple[LayerGradient | None, Array]:
    """Return the gradients at the layer, g'x and Σ g, and at its input, gW, for the gradient g at its output."""
    if layer is None:
        return None, g
    return LayerGradient(g.T @ x, None if layer.bias is None else g.sum(axis=0)), np.asarray(g @ layer.weight)
