"""The loss and its gradients for the codes that an implementation chose, in the convention that it declares."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from vq_reference import codebook, loss, nearest
from vq_reference.arguments import Array
from vq_reference.testing import bounds
from vq_reference.testing.adapters.implementation import Implementation
from vq_reference.testing.strategies import Case


@dataclass(frozen=True)
class Loss:
    """ℓ = a·mean(sg(x) − q)² + b·mean(x − sg(q))² at the chosen codes, and the bounds on what computes it.

    value: ℓ. at_x: its gradient at the input, (N, D). at_codebook: at the codes, (K, D). at_transform: at each
    parameter of the transform, by the oracle's names. Each bound is named after what it bounds.
    """

    value: float
    value_bound: float
    at_x: Array
    at_x_bound: Array
    at_codebook: Array
    at_codebook_bound: Array
    at_transform: dict[str, Array]
    at_transform_bound: dict[str, Array]


def loss_of(implementation: Implementation, case: Case, indices: Array) -> Loss:
    """Return the closed forms for these indices, with the implementation's declared weights and reduction."""
    u, q, size = implementation.precision.unit_roundoff, case.codes[indices], len(case.codes)
    # what a product of small numbers loses to gradual underflow, whatever their relative errors
    lost = 8 * implementation.precision.smallest_subnormal
    count = case.x.size if implementation.loss_reduction == "sum" else 1
    a, b = (count * weight for weight in implementation.loss_weights(case.reference))
    shown = implementation.loss_value
    value = loss.commitment_loss(case.x, q, 0.0, a + b if shown is None else count * shown(case.reference))
    _, at_q = loss.vjp(case.x, q, commitment_weight=a)
    at_x, _ = loss.vjp(case.x, q, beta=1.0, commitment_weight=b)
    at_codebook = nearest.gather_vjp(indices, at_q, size)
    at_codebook_bound = bounds.codebook_gradient(at_q, indices, size, u) + lost * (1 + len(indices))
    absolute = nearest.gather_vjp(indices, np.abs(at_q), size)
    absolute += lost * (1 + len(indices)) / u  # as large a number as that loses the same to rounding
    frozen, transform = case.reference.frozen_codebook, case.reference.transform
    # and each of the K products at a weight may underflow by itself
    relative = bounds.transform_gradient(frozen, transform, absolute, len(case.x), u)
    at_transform = {}
    for i, layer in enumerate(codebook.vjp(frozen, transform, at_codebook)):
        at_transform[f"{i}.weight"] = layer.weight
        if layer.bias is not None:
            at_transform[f"{i}.bias"] = layer.bias
    return Loss(
        value=value,
        value_bound=bounds.mean_square(case.x.size, u) * value + lost * max(1.0, a + b),
        at_x=at_x,
        at_x_bound=bounds.loss_gradient(at_x, u) + lost * max(1.0, b),
        at_codebook=at_codebook,
        at_codebook_bound=at_codebook_bound,
        at_transform=at_transform,
        at_transform_bound={name: limit + lost * size for name, limit in relative.items()},
    )


def output_at_codes(implementation: Implementation, case: Case, indices: Array, g: Array) -> tuple[Array, Array]:
    """Return what of the output's gradient g, (N, D), reaches the codes, (K, D), as declared; and its bound."""
    u, size, at_q = implementation.precision.unit_roundoff, len(case.codes), implementation.sync_nu * g
    lost = (1 + len(indices)) * implementation.precision.smallest_subnormal if implementation.sync_nu else 0.0
    return nearest.gather_vjp(indices, at_q, size), bounds.codebook_gradient(at_q, indices, size, u) + lost


def arrived(gradient: Array | None, like: Array) -> Array:
    """Return the gradient, and zeros for none at all: that is what an optimizer makes of it."""
    return np.zeros_like(like) if gradient is None else gradient
