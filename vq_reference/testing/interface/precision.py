"""The dtype that an implementation computes in, as the bounds need it: unit roundoff, range, and rounding into it.

Laws see NumPy float64 on both sides of the border. What crosses it is rounded to the implementation's dtype first, so
that the oracle and the implementation are asked the same question.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from vq_reference.arguments import Array


@dataclass(frozen=True)
class Precision:
    """A binary floating-point format.

    name: as in torch and NumPy, such as "float32".
    unit_roundoff: u, half the distance from 1 to the next number.
    largest, smallest_normal: the range in which relative errors are at most u.
    round: float64 array in, nearest representable values out, as float64.
    """

    name: str
    unit_roundoff: float
    largest: float
    smallest_normal: float
    round: Callable[[Array], Array]

    @property
    def smallest_subnormal(self) -> float:
        """The spacing of the numbers below the normal range, where errors are absolute."""
        return self.smallest_normal * 2 * self.unit_roundoff


def underflow_gradually() -> None:
    """Let this thread have subnormal numbers again, if something took them away and torch is there to ask.

    A library that was linked with -ffast-math does so as it is loaded, as what torch.compile made up to torch 2.4 was.
    Bounds count on them, and hypothesis ends in an error of its own.
    """
    smallest_normal = sys.float_info.min
    if smallest_normal / 2 == 0 and "torch" in sys.modules:
        sys.modules["torch"].set_flush_denormal(False)


def _round_through(dtype: type) -> Callable[[Array], Array]:
    def rounded(values: Array) -> Array:
        with np.errstate(over="ignore"):
            return np.asarray(values, np.float64).astype(dtype).astype(np.float64)

    return rounded


def _round_to_bfloat16(values: Array) -> Array:
    """Round once, to 8 binary digits and ties to even, with float32's exponents; NumPy has no such dtype."""
    wide = np.asarray(values, np.float64)
    _, exponent = np.frexp(wide)
    last_place = np.maximum(exponent - 8, -133)  # 2^−133 is the smallest subnormal number
    rounded = np.ldexp(np.round(np.ldexp(wide, -last_place)), last_place)
    return np.asarray(np.where(np.abs(rounded) > np.ldexp(2 - 2.0**-7, 127), np.copysign(np.inf, rounded), rounded))


def _ieee(dtype: type) -> Precision:
    limits = np.finfo(dtype)
    return Precision(
        np.dtype(dtype).name, float(limits.eps) / 2, float(limits.max), float(limits.tiny), _round_through(dtype)
    )


BFLOAT16 = Precision(
    "bfloat16", 2.0**-8, float(np.ldexp(2 - 2.0**-7, 127)), float(np.finfo(np.float32).tiny), _round_to_bfloat16
)
PRECISIONS = {p.name: p for p in (_ieee(np.float16), BFLOAT16, _ieee(np.float32), _ieee(np.float64))}
# names of integer dtypes, as in torch and NumPy
INTEGERS = tuple(f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64))
