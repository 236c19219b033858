"""A residual stack: each layer quantizes what those before it left (Zeghidour et al., SoundStream, arXiv 2107.03312).

    r_0 = x        r_{i+1} = r_i − sg(q_i)        q = Σ q_i        ℓ_i = loss of layer i at (r_i, q_i)

The flow of gradients, as declared here. sg(q_i) is a constant, so ∂r_i/∂x = I: every ℓ_i reaches x, as w·β·2(r_i − q_i)
over the number of entries. The output has one estimator around the whole stack, between x and q: its gain is that of
one quantizer, J = I for straight-through, whatever the number of layers. An estimator for each layer, summed, would
give N·I.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from vq_reference import estimators, loss, nearest
from vq_reference.arguments import Array, vectors
from vq_reference.estimators import Estimator


@dataclass(frozen=True)
class Quantized:
    """What one forward gives: output (N, D), indices (N, layers) int64, losses (layers,)."""

    output: Array
    indices: Array
    losses: Array


@dataclass(frozen=True)
class Gradients:
    """What one backward gives: at x (N, D), and at the codes of each layer (K_i, D)."""

    x: Array
    codes: tuple[Array, ...]


@dataclass(frozen=True)
class ResidualStack:
    """Layers with codes of (K_i, D) each, all of one width. trained: as in `vector_quantize.VectorQuantize`.

    >>> stack = ResidualStack((np.array([[0.0], [8.0]]), np.array([[-2.0], [2.0]])))
    >>> stack.forward(np.array([[7.0]]))
    Quantized(output=array([[6.]]), indices=array([[1, 0]]), losses=array([0.25, 0.25]))
    """

    codes: tuple[Array, ...]
    trained: bool = False
    estimator: Estimator = "straight_through"
    beta: float = 0.25
    commitment_weight: float = 1.0

    def residuals(self, x: Array, kept: int | None = None) -> tuple[list[Array], list[Array], list[Array]]:
        """Return r_i, (N, D), i, (N,), and q_i, (N, D), of the first `kept` layers; of all, if None."""
        left = vectors("x", x)
        residuals, indices, quantized = [], [], []
        for codes in self.codes[:kept]:
            residuals.append(left)
            indices.append(nearest.nearest(left, codes))
            quantized.append(codes[indices[-1]])
            left = left - quantized[-1]
        return residuals, indices, quantized

    def forward(self, x: Array, kept: int | None = None) -> Quantized:
        """Quantize x, (N, D), by the first `kept` layers; the others have index −1 and loss 0."""
        residuals, indices, quantized = self.residuals(x, kept)
        all_indices = np.full((len(x), len(self.codes)), -1)
        losses = np.zeros(len(self.codes))
        for i, (r, q) in enumerate(zip(residuals, quantized, strict=True)):
            all_indices[:, i] = indices[i]
            losses[i] = loss.commitment_loss(r, q, self.beta, self.commitment_weight)
            if not self.trained:
                losses[i] = loss.commitment_loss(r, q, 0.0, self.beta * self.commitment_weight)  # of the encoder half
        return Quantized(self.decode(all_indices), all_indices, losses)

    def decode(self, indices: Array) -> Array:
        """Return Σ q_i, (N, D), for indices (N, layers), one layer after another; −1 adds nothing.

        >>> ResidualStack((np.array([[8.0]]), np.array([[-2.0]]))).decode(np.array([[0, 0], [0, -1]]))
        array([[6.],
               [8.]])
        """
        total = np.zeros((len(indices), self.codes[0].shape[1]))
        for i, codes in enumerate(self.codes):
            kept = indices[:, i] >= 0
            total[kept] += codes[indices[kept, i]]
        return total

    def gradients(self, x: Array, g_output: Array, g_losses: Sequence[float], kept: int | None = None) -> Gradients:
        """Return the gradients of ⟨g_output, output⟩ + Σ g_i·ℓ_i, the indices held fixed. g_output: (N, D)."""
        residuals, indices, quantized = self.residuals(x, kept)
        at_x, output_at_q = estimators.vjp(x, sum(quantized, np.zeros_like(x)), g_output, self.estimator)
        at_codes = [np.zeros_like(codes) for codes in self.codes]
        for i, (r, q) in enumerate(zip(residuals, quantized, strict=True)):
            at_r, loss_at_q = loss.vjp(r, q, g_losses[i], self.beta, self.commitment_weight)
            at_x = at_x + at_r
            if self.trained:
                at_codes[i] = nearest.gather_vjp(indices[i], output_at_q + loss_at_q, len(self.codes[i]))
        return Gradients(at_x, tuple(at_codes))
