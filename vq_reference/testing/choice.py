"""Which tokens have a choice that rounding cannot change: where codes tie, no law asks for one of them."""

from __future__ import annotations

import numpy as np

from vq_reference import nearest
from vq_reference.arguments import Array
from vq_reference.testing import bounds
from vq_reference.testing.strategies import Case


def decided(case: Case, u: float) -> Array:
    """Return, (N,) bool, whether the nearest code is nearer than any different one by more than the bound.

    Codes drawn twice are one code here: an implementation may choose either. The bound is that of the expanded square,
    the coarsest of the usual ways to compute a distance.
    """
    squares = nearest.distances(case.x, case.codes) ** 2
    best = case.codes[squares.argmin(axis=1)]
    answer = np.ones(len(case.x), bool)
    for code, square in zip(case.codes, squares.T, strict=True):
        other = np.any(best != code, axis=1)
        rival = np.broadcast_to(code, best.shape)
        gap = square - squares.min(axis=1)
        answer &= ~other | (gap > bounds.excess_by_expansion(case.x, best, rival, u))
    return answer
