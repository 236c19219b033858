"""A layer as lines of plain torch: what an adapter writes, and a script for a bug report is made of."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple


class Written(NamedTuple):
    """A layer, and one call of it, as source text.

    make: lines that define `layer`, and with it `named`, its parameters and buffers by name, and `at_codes`.
    call: lines that call it on `x`, (N, D), and define `returned`, and `lying`: output, indices and loss as they lie.
    read: lines that make of them `output`, (N, D), `indices`, (N,), `loss`, `after`, (N, D), the input as the call left
    it, and `codes` and `parameters`.
    decode: a number N → lines that take `chosen`, (N,), and define `decoded`, (N, D). None where there is no decode.
    Of all of these names those that there are.
    """

    make: str
    call: str
    read: str
    decode: Callable[[int], str] | None = None
