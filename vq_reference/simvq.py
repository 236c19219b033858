"""SimVQ as a whole (Zhu et al., arXiv 2411.02038): choose from E = T(C), hand on the code, train T and the encoder.

The oracle of this project: every gradient is a formula in the file of its object, put together here by the chain rule.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from vq_reference import codebook, estimators, loss, nearest
from vq_reference.arguments import Array
from vq_reference.codebook import Layer, LayerGradient
from vq_reference.estimators import Estimator


@dataclass(frozen=True)
class Quantized:
    """What one forward gives: output (N, D), indices (N,) int64, loss a number."""

    output: Array
    indices: Array
    loss: float


@dataclass(frozen=True)
class Gradients:
    """What one backward gives: at x (N, D), at the effective codebook (K, D), and at each layer of the transform."""

    x: Array
    codebook: Array
    transform: tuple[LayerGradient, ...]


@dataclass(frozen=True)
class SimVQ:
    """A SimVQ layer with frozen codes C (K, F) and transform T: F → D.

    >>> layer = SimVQ(np.array([[1.0, 0.0], [0.0, 1.0]]), (Layer(2 * np.eye(2)),), estimator="straight_through")
    >>> layer.forward(np.array([[1.5, 0.5]]))
    Quantized(output=array([[2., 0.]]), indices=array([0]), loss=0.3125)
    """

    frozen_codebook: Array
    transform: tuple[Layer, ...]
    estimator: Estimator = "rotation"
    beta: float = 0.25
    commitment_weight: float = 1.0

    @property
    def codebook(self) -> Array:
        """The effective codes E = T(C), (K, D)."""
        return codebook.effective_codebook(self.frozen_codebook, self.transform)

    def forward(self, x: Array) -> Quantized:
        """Quantize x, (N, D). Raises ValueError or TypeError that names the argument which cannot be used."""
        codes = self.codebook
        indices = nearest.nearest(x, codes)
        q = codes[indices]
        value = loss.commitment_loss(x, q, self.beta, self.commitment_weight)
        return Quantized(estimators.output(x, q), indices, value)

    def gradients(self, x: Array, g_output: Array, g_loss: float) -> Gradients:
        """Return the gradients of ⟨g_output, output⟩ + g_loss·ℓ, the indices held fixed. g_output: (N, D)."""
        codes = self.codebook
        indices = nearest.nearest(x, codes)
        q = codes[indices]
        output_at_x, output_at_q = estimators.vjp(x, q, g_output, self.estimator)
        loss_at_x, loss_at_q = loss.vjp(x, q, g_loss, self.beta, self.commitment_weight)
        at_codebook = nearest.gather_vjp(indices, output_at_q + loss_at_q, len(codes))
        at_transform = codebook.vjp(self.frozen_codebook, self.transform, at_codebook)
        return Gradients(np.asarray(output_at_x + loss_at_x), at_codebook, at_transform)
