"""What the laws of auxiliary terms draw: tokens between codes, codebooks, and chosen indices.

Numbers are of few binary digits, as in `strategies_lasting`, so that a case is the same one in every dtype.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from hypothesis import assume, event
from hypothesis import strategies as st

from vq_reference.arguments import Array
from vq_reference.testing.laws.strategies.stateful_cases import grids


class Spread(NamedTuple):
    """Tokens x (N, D), codes (K, D), and the temperature τ of a soft choice between them."""

    x: Array
    codes: Array
    temperature: float


@st.composite
def spreads(draw: st.DrawFn) -> Spread:
    """Draw tokens that stand on no code, and a temperature at which every code has a share that can be represented.

    Entries are at most 1, so that τ·d ≤ 4√3: no share is below e^(−7)/K, where implementations clamp.
    """
    width = draw(st.integers(1, 3))
    codes = draw(grids(draw(st.integers(2, 5)), width, most=1))
    x = draw(grids(draw(st.integers(1, 8)), width, most=1)) + 1 / 16  # codes are multiples of 1/8
    return Spread(x, codes, draw(st.sampled_from([1.0, 0.5, 2.0])))


@st.composite
def sharp_spreads(draw: st.DrawFn) -> tuple[Spread, int]:
    """Draw tokens that stand on codes, at a temperature that makes the choice a hard one; and how many codes they use.

    Either one code, or every code by as many tokens. Codes are 4 apart or more, and e^(−4τ) is 0 in every dtype.
    """
    size, width = draw(st.integers(2, 5)), draw(st.integers(1, 3))
    codes = draw(grids(size, width, most=1))
    codes[:, 0] = 4 * np.arange(size)
    used = np.array([draw(st.integers(0, size - 1))]) if draw(st.booleans()) else np.arange(size)
    event("all codes" if len(used) > 1 else "one code")
    return Spread(codes[np.tile(used, draw(st.integers(1, 3)))], codes, 256.0), len(used)


@st.composite
def codebooks(draw: st.DrawFn) -> Array:
    """Draw codes, (K, D), none of them short: in any direction, of one line, or at right angles to each other."""
    codes = draw(grids(draw(st.integers(1, 5)), draw(st.integers(1, 4))))
    kind = draw(st.sampled_from(["any directions", "one line", "right angles"]))
    event(kind)
    if kind == "one line":
        codes = codes[:1] * np.resize([1.0, -2.0, 1.0], len(codes))[:, None]
    if kind == "right angles":
        codes = np.diag(np.resize([1.0, -2.0, 0.5], len(codes)))
    assume(np.all(np.linalg.norm(codes, axis=1) >= 0.5))
    return codes


@st.composite
def choices(draw: st.DrawFn) -> tuple[Array, int]:
    """Draw the indices of one token or more, (N,), and the number of codes, of which some may be unused."""
    size = draw(st.integers(1, 6))
    return np.array(draw(st.lists(st.integers(0, size - 1), min_size=1, max_size=12))), size
