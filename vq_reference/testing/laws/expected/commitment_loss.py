"""The loss and its gradients for the codes that an implementation chose, in the convention that it declares."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from vq_reference import codebook, loss, nearest
from vq_reference.arguments import Array
from vq_reference.testing.interface.implementation import Implementation
from vq_reference.testing.interface.subjects import Case
from vq_reference.testing.laws.bounds import bounds


@dataclass(frozen=True)
class Loss:
    """ℓ = a·mean(sg(x) − q)² + b·mean(x − sg(q))² at the chosen codes, and the bounds on what computes it.

    All are computed when they are asked for, so that a report names the bounds that a law used, and no others.
    """

    implementation: Implementation
    case: Case
    indices: Array

    @cached_property
    def weights(self) -> tuple[float, float]:
        """The weights a and b, as declared."""
        a, b = (self._count * weight for weight in self.implementation.loss_weights(self.case.reference))
        return a, b

    @cached_property
    def value(self) -> float:
        """ℓ."""
        shown = self.implementation.loss_value
        weight = sum(self.weights) if shown is None else self._count * shown(self.case.reference)
        return loss.commitment_loss(self.case.x, self._q, 0.0, weight)

    @cached_property
    def value_bound(self) -> float:
        """Bound on the error of `value`."""
        return bounds.mean_square(self.case.x.size, self._u) * self.value + self._lost * max(1.0, sum(self.weights))

    @cached_property
    def at_x(self) -> Array:
        """∂ℓ/∂x, (N, D)."""
        at_x, _ = loss.vjp(self.case.x, self._q, beta=1.0, commitment_weight=self.weights[1])
        return at_x

    @cached_property
    def at_x_bound(self) -> Array:
        """Bound on the error of `at_x`."""
        return bounds.loss_gradient(self.at_x, self._u) + self._lost * max(1.0, self.weights[1])

    @cached_property
    def at_codebook(self) -> Array:
        """∂ℓ/∂E, (K, D)."""
        return nearest.gather_vjp(self.indices, self._at_q, len(self.case.codes))

    @cached_property
    def at_codebook_bound(self) -> Array:
        """Bound on the error of `at_codebook`."""
        limit = bounds.codebook_gradient(self._at_q, self.indices, len(self.case.codes), self._u)
        return limit + self._lost * (1 + len(self.indices))

    @cached_property
    def at_transform(self) -> dict[str, Array]:
        """Each parameter's gradient, by the oracle's name."""
        reference, found = self.case.reference, {}
        for i, layer in enumerate(codebook.vjp(reference.frozen_codebook, reference.transform, self.at_codebook)):
            found[f"{i}.weight"] = layer.weight
            if layer.bias is not None:
                found[f"{i}.bias"] = layer.bias
        return found

    @cached_property
    def at_transform_bound(self) -> dict[str, Array]:
        """Bound on the error of each in `at_transform`."""
        reference, size = self.case.reference, len(self.case.codes)
        absolute = nearest.gather_vjp(self.indices, np.abs(self._at_q), size)
        # as large a number as that loses the same to rounding
        absolute += self._lost * (1 + len(self.indices)) / self._u
        frozen, transform = reference.frozen_codebook, reference.transform
        relative = bounds.transform_gradient(frozen, transform, absolute, len(self.case.x), self._u)
        # and each of the K products at a weight may underflow by itself
        return {name: limit + self._lost * size for name, limit in relative.items()}

    @property
    def _count(self) -> int:
        return self.case.x.size if self.implementation.loss_reduction == "sum" else 1

    @property
    def _u(self) -> float:
        return self.implementation.precision.unit_roundoff

    @property
    def _lost(self) -> float:
        """What a product of small numbers loses to gradual underflow, whatever their relative errors."""
        return 8 * self.implementation.precision.smallest_subnormal

    @property
    def _q(self) -> Array:
        return np.asarray(self.case.codes[self.indices])

    @property
    def _at_q(self) -> Array:
        at_q: Array
        _, at_q = loss.vjp(self.case.x, self._q, commitment_weight=self.weights[0])
        return at_q


def loss_of(implementation: Implementation, case: Case, indices: Array) -> Loss:
    """Return the closed forms for these indices, with the implementation's declared weights and reduction."""
    return Loss(implementation, case, indices)


def output_at_codes(implementation: Implementation, case: Case, indices: Array, g: Array) -> tuple[Array, Array]:
    """Return what of the output's gradient g, (N, D), reaches the codes, (K, D), as declared; and its bound."""
    u, size, at_q = implementation.precision.unit_roundoff, len(case.codes), implementation.sync_nu * g
    lost = (1 + len(indices)) * implementation.precision.smallest_subnormal if implementation.sync_nu else 0.0
    return nearest.gather_vjp(indices, at_q, size), bounds.codebook_gradient(at_q, indices, size, u) + lost


def arrived(gradient: Array | None, like: Array) -> Array:
    """Return the gradient, and zeros for none at all: that is what an optimizer makes of it."""
    return np.zeros_like(like) if gradient is None else gradient
