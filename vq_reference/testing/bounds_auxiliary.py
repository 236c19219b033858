"""Tolerances for what trains codes beside the commitment loss: directional reparameterization.

Notation and source as in `vq_reference.testing.bounds`.
"""

from __future__ import annotations

import numpy as np

from vq_reference.arguments import Array
from vq_reference.testing.bounds import direction, gamma


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
