"""The choice as the declared metric has it, and which tokens have one that rounding cannot change."""

from __future__ import annotations

import numpy as np

from vq_reference import nearest
from vq_reference.arguments import Array
from vq_reference.testing.interface.implementation import Implementation
from vq_reference.testing.interface.subjects import Case
from vq_reference.testing.laws.bounds import bounds


def compared(implementation: Implementation, case: Case) -> tuple[Array, Array]:
    """Return the points whose Euclidean distances the choice compares: x and codes, or their directions for cosine.

    Of directions the nearest is the one with the largest cosine: ‖x̂ − ĉ‖² = 2 − 2x̂·ĉ. A zero vector stays zero.
    """
    if implementation.metric == "euclidean":
        return case.x, case.codes
    lengths = [np.linalg.norm(v, axis=1, keepdims=True) for v in (case.x, case.codes)]
    x, codes = (v / np.where(length, length, 1) for v, length in zip((case.x, case.codes), lengths, strict=True))
    return np.asarray(x), np.asarray(codes)


def tolerated(implementation: Implementation, x: Array, chosen: Array, best: Array) -> Array:
    """Bound on ‖x − chosen‖² − ‖x − best‖², (N,), for points of `compared`, by the coarsest of the usual ways.

    That is the expanded square. A direction is itself computed, twice ε for x and for the code, at most 2 apart: 8ε in
    each of two squares.
    """
    u = implementation.precision.unit_roundoff
    normalised = 16 * bounds.direction(x.shape[1], u) if implementation.metric == "cosine" else 0.0
    return bounds.excess_by_expansion(x, chosen, best, u) + normalised


def decided(implementation: Implementation, case: Case) -> Array:
    """Return, (N,) bool, whether the nearest code is nearer than any different one by more than is tolerated.

    Codes drawn twice are one code here: an implementation may choose either.
    """
    x, codes = compared(implementation, case)
    squares = nearest.distances(x, codes) ** 2
    best = squares.argmin(axis=1)
    tokens, rivals = (each.reshape(-1) for each in np.indices(squares.shape))
    limit = tolerated(implementation, x[tokens], codes[best[tokens]], codes[rivals]).reshape(squares.shape)
    equal = np.all(case.codes[best][:, None] == case.codes, axis=2)
    return np.asarray(np.all(equal | (squares - squares.min(axis=1, keepdims=True) > limit), axis=1))
