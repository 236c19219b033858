"""How a law says that it is broken, and how near it came: the margin, measured ÷ bound."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

import numpy as np

from vq_reference.arguments import Array

Listener = Callable[[str, float], None]
_listener: ContextVar[Listener | None] = ContextVar("margin listener", default=None)


class LawBroken(AssertionError):
    """The implementation does not do what the law states. Carries what a report needs.

    what: the quantity. expected, actual, bound: arrays of one shape. worst: index of the entry farthest
    beyond its bound.
    """

    def __init__(self, what: str, actual: Array, expected: Array, bound: Array) -> None:
        self.what, self.actual, self.expected, self.bound = what, actual, expected, bound
        self.margins = _margins(actual, expected, bound)
        worst = np.unravel_index(int(np.argmax(np.nan_to_num(self.margins, nan=np.inf))), self.margins.shape)
        self.worst = tuple(int(i) for i in worst)
        where = f"[{', '.join(map(str, self.worst))}]" if self.worst else ""
        super().__init__(
            f"{what}{where} is {actual[worst]:.9g}, expected {expected[worst]:.9g} within {bound[worst]:.3g}"
            f" ({self.margins[worst]:.3g} times the bound)"
        )


def assert_within(what: str, actual: Array | float, expected: Array | float, bound: Array | float) -> None:
    """Raise LawBroken unless |actual − expected| ≤ bound in every entry; report the largest margin.

    A NaN in `actual` is beyond every bound. Shapes of expected and bound broadcast to that of actual; a shape that does
    not is a broken law too. Raises ValueError for a bound below 0, which no derivation gives: it would allow anything.

    >>> assert_within("λ", np.array([1.0]), 1.0, 0.0)
    >>> assert_within("λ", np.array([1.0, 3.0]), 1.0, 0.5)
    Traceback (most recent call last):
    vq_reference.testing.laws.assertions.LawBroken: λ[1] is 3, expected 1 within 0.5 (4 times the bound)
    """
    measured = np.asarray(actual, np.float64)
    wanted = np.asarray(expected, np.float64)
    try:
        wanted = np.broadcast_to(wanted, measured.shape)
    except ValueError:
        raise AssertionError(f"{what} has shape {measured.shape}, expected {wanted.shape}") from None
    limit = np.broadcast_to(np.asarray(bound, np.float64), measured.shape)
    if np.any(limit < 0):
        raise ValueError(f"bound of {what} is {np.min(limit):.3g}: expected none below 0")
    margin = float(np.max(_margins(measured, wanted, limit), initial=0.0))
    if not margin <= 1:
        raise LawBroken(what, measured, wanted, limit)
    report(what, margin)


class NoneOfThose(AssertionError):
    """What has no distance, a shape or the name of a dtype, is none of those that the law allows."""

    def __init__(self, what: str, actual: object, allowed: tuple[object, ...], words: str) -> None:
        self.what, self.actual, self.allowed = what, actual, allowed
        super().__init__(f"{what} is {actual}, expected {words or ' or '.join(map(str, allowed))}")


def assert_one_of(what: str, actual: object, allowed: Iterable[object], words: str = "") -> None:
    """Raise NoneOfThose unless `actual` equals one of those that are allowed; words: what they are together.

    >>> assert_one_of("shape of the loss", (), [()])
    >>> assert_one_of("dtype of the loss", "int64", ["float32", "float64"])
    Traceback (most recent call last):
    vq_reference.testing.laws.assertions.NoneOfThose: dtype of the loss is int64, expected float32 or float64
    """
    listed = tuple(allowed)
    if actual not in listed:
        raise NoneOfThose(what, actual, listed, words)


def report(what: str, value: float) -> None:
    """Hand a measured value to the report that no bound judges.

    >>> seen = []
    >>> with listening(lambda what, value: seen.append((what, value))):
    ...     report("rate of wrong codes", 0.25)
    >>> seen
    [('rate of wrong codes', 0.25)]
    """
    listener = _listener.get()
    if listener:
        listener(what, value)


@contextmanager
def listening(listener: Listener) -> Iterator[None]:
    """Hand every margin of this context to `listener(what, margin)`."""
    token = _listener.set(listener)
    try:
        yield
    finally:
        _listener.reset(token)


def _margins(actual: Array, expected: Array, bound: Array) -> Array:
    with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
        error = np.where(actual == expected, 0.0, np.abs(actual - expected))  # equal infinities are equal
        return np.asarray(np.where(error == 0, 0.0, error / bound))
