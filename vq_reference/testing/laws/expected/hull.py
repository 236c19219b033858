"""Where a code may lie that is a mean of tokens, and codes that no token chooses."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from vq_reference.arguments import Array
from vq_reference.testing.interface.subjects import Subject
from vq_reference.testing.laws.bounds import bounds_state


def hull(subject: Subject, codes: Array, tokens: Array) -> Callable[[float], Array]:
    """Bound on a code that is an average of what stood at `codes` and `tokens`: the longest entry of either."""
    size = np.maximum(np.abs(codes), np.abs(tokens).max(axis=0, initial=0.0))
    return lambda u: bounds_state.ema_codes(size, np.ones(len(codes)), len(tokens), 1, u)
