"""The border for auxiliary terms: what a library adds to its loss for the codes' sake, or shows beside it.

As in `implementation`, everything is NumPy float64.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

from vq_reference.arguments import Array

# What an implementation may declare of it: names of the fields of `Auxiliary`.
TERMS = {
    "diversity": "a term for the diversity of its codes",
    "orthogonality": "a term for the orthogonality of its codes",
    "perplexity": "the perplexity of chosen indices",
    "usage": "the share of codes that are in use",
}


class Term(NamedTuple):
    """A term's value, and its gradient at x, (N, D), and at the codes, (K, D). None: no path leads there."""

    value: float
    x: Array | None
    codes: Array | None


@dataclass(frozen=True)
class Auxiliary:
    """The terms that an implementation has; None for one that it has not.

    diversity: (x (N, D), leading dimensions whose product is N, codes (K, D), τ) → its term.
    orthogonality: codes (K, D) → its term, which no token has a part in.
    perplexity, usage: (indices (N,), K) → its value; an index of −1 is that of padding.
    script: its name → lines of plain torch that take what it is asked of, by these names: `x`, (N, D), `leading`,
    `codes`, (K, D), and `temperature`; or `indices`, (N,), and `codebook_size`. They define `value`, a scalar.
    """

    diversity: Callable[[Array, tuple[int, ...], Array, float], Term] | None = None
    orthogonality: Callable[[Array], Term] | None = None
    perplexity: Callable[[Array, int], float] | None = None
    usage: Callable[[Array, int], float] | None = None
    script: Callable[[str], str] | None = None
