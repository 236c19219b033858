"""The pinned layers and inputs. No generator of NumPy or torch draws them: those may change with a release."""

from __future__ import annotations

import numpy as np

from vq_reference.arguments import Array
from vq_reference.codebook import Layer
from vq_reference.estimators import Estimator
from vq_reference.simvq import SimVQ
from vq_reference.testing.interface.precision import Precision
from vq_reference.testing.interface.subjects import Case

#: name → (N, D, K). Sums as long as those of "wide" have no error bound in 8 or 11 digits.
SIZES = {"narrow": (6, 4, 5), "wide": (40, 16, 24)}
NARROW_ONLY = ("float16", "bfloat16")


def pinned(size: str, estimator: Estimator, precision: Precision) -> Case:
    """Return a layer and tokens, (N, D), with full mantissas in this precision, whatever else is installed.

    Each code has a direction of its own, its tokens stand around it, and no rounding can change a token's nearest code.
    The transform doubles and permutes, which is exact, so that the codes are the same in every implementation.

    >>> from vq_reference.testing.interface.precision import PRECISIONS
    >>> pinned("narrow", "rotation", PRECISIONS["float32"]).x.shape
    (6, 4)
    """
    tokens, dim, codes = SIZES[size]
    noise = congruential((codes + tokens, dim))
    # ±e_j for distance, and noise for digits; the second round of axes is twice as long
    axes = np.concatenate([np.eye(dim), -np.eye(dim), 2 * np.eye(dim)])[:codes]
    frozen = precision.round(axes + noise[:codes] / (4 * dim))
    transform = 2 * np.roll(np.eye(dim), 1, axis=0)
    around = (frozen @ transform.T)[np.arange(tokens) % codes]
    x = precision.round(around + noise[codes:] / 4)
    return Case(SimVQ(frozen, (Layer(transform),), estimator), x)


def congruential(shape: tuple[int, ...]) -> Array:
    """Return numbers in [−1, 1) with 31 digits, by the generator x ← 1103515245·x + 12345 mod 2³¹ of ISO C."""
    state, drawn = 1, []
    for _ in range(int(np.prod(shape))):
        state = (1103515245 * state + 12345) % 2**31
        drawn.append(state / 2**30 - 1)
    return np.array(drawn).reshape(shape)
