"""Shape 6 in JAX: straight-through and the rotation trick as functions of tokens and their codes."""

import jax.numpy as jnp
from jax.lax import stop_gradient

from vq_reference.testing import jax_estimator


def straight_through(x, q):
    """Return q with J = I."""
    return x + stop_gradient(q - x)


def rotate(x, q):
    """Return λRx with R = I − 2ww' + 2q̂x̂' and λ held constant."""

    def norm(v):
        # never 0, as in torch's normalize: a token of zeros comes out as zeros, and not as NaN
        return jnp.maximum(jnp.linalg.norm(v, axis=-1, keepdims=True), 1e-12)

    def unit(v):
        return v / norm(v)

    def along(a, b):
        return jnp.sum(a * b, axis=-1, keepdims=True)

    x_hat, q_hat = stop_gradient(unit(x)), stop_gradient(unit(q))
    w = stop_gradient(unit(x_hat + q_hat))
    ratio = stop_gradient(jnp.linalg.norm(q, axis=-1, keepdims=True) / norm(x))
    return ratio * (x - 2 * w * along(w, x) + 2 * q_hat * along(x_hat, x))


def adapter():
    """Return what the laws need to know of it."""
    return jax_estimator(straight_through, "straight_through")


def rotation():
    """Return the same of the rotation."""
    return jax_estimator(rotate, "rotation")
