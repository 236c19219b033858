"""How a script ends: with the comparison that shows the fault, found by trying it out on both sides.

No script is handed out that was not run twice: here it has to find the fault, and on right code it has to find none.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import NamedTuple

import numpy as np

from vq_reference.arguments import Array
from vq_reference.testing.adapters.codegen.run_script import BROKEN, COMPARE, HOLDS, run
from vq_reference.testing.adapters.codegen.source import NoScript, exactly
from vq_reference.testing.laws.assertions import LawBroken
from vq_reference.testing.reporting.repro.replay_values import selections


class Told(NamedTuple):
    """The lines of the same steps in somebody's code, and in right code.

    right: None where right code of ours does not have it: the form of an answer, the name of a parameter.
    """

    faulty: str
    right: str | None


def tried(told: Told, ends: Iterable[str], error: Exception) -> str:
    """Return the first script that shows the fault, and shows none in right code. Raises NoScript."""
    for end in ends:
        shown = run(told.faulty + end)
        # of an exception: the one that the law met, and not what the script itself may stumble over
        same = shown.raised is None or type(shown.raised) is type(error)
        if shown.code == BROKEN and same and (told.right is None or run(told.right + end).code == HOLDS):
            return told.faulty + end
    if (met := run(told.faulty).raised) is not None:
        raise NoScript(f"its lines alone end in {type(met).__name__}: {met}")
    raise NoScript("no call of the law, made alone, shows the fault")


def comparisons(told: Told, actual: str, error: LawBroken) -> Iterator[str]:
    """Yield what may show the fault, `actual` being the expression for what the law measured.

    The law's own comparison, and the same turned round: of a law that compares two calls, which of them was the faulty
    one? Where neither was right, with what right code gives: that is off by its own rounding, and the bound is twice
    the law's.
    """
    expected = f"expected = {exactly(error.expected)}\n"
    whole = _array(told.faulty + expected, actual)
    if whole is None:
        return
    sides = ((error.actual, error.expected), (error.expected, error.actual))
    of_calls = [(unit, unit * measured, unit * other) for measured, other in sides for unit in _units(whole, measured)]
    for unit, measured, other in of_calls:
        for rows, _ in selections(whole, measured):
            yield _end(error, actual, rows, other, unit * error.bound)
            wanted = None if told.right is None else _array(told.right + expected, actual, rows)
            if wanted is not None:
                yield _end(error, actual, rows, wanted, 2 * unit * error.bound)
    # a quantity that the law worked out in another order than the script is not the same to the last bit
    shape = error.actual.shape
    alike = [f".reshape({shape})"] if whole.size == error.actual.size else []
    alike += [f"[{i}]" for i in range(len(whole))] if whole.ndim and whole.shape[1:] == shape else []
    for rows in alike:
        for other in (error.expected, error.actual):
            yield _end(error, actual, rows, other, error.bound)


def _units(whole: Array, measured: Array) -> Iterator[float]:
    """Yield 1, and the power of two that makes the one as large as the other: some laws scale one of two calls so."""
    yield 1.0
    with np.errstate(all="ignore"):
        ratio = float(np.max(np.abs(whole), initial=0.0) / np.max(np.abs(measured), initial=0.0))
    if np.isfinite(ratio) and ratio != 1 and np.frexp(ratio)[0] == 0.5:
        yield ratio


def _end(error: LawBroken, actual: str, rows: str, expected: Array, bound: Array) -> str:
    numbers = {"expected": exactly(expected), "bound": exactly(bound)}
    return COMPARE.format(actual=actual, rows=rows, what=error.what, **numbers)


def _array(lines: str, expression: str, rows: str = "") -> Array | None:
    """Return what an expression gives after these lines, None where they raise or have no such thing."""
    source = f"{lines}\nwhole = torch.as_tensor({expression}).detach().double(){rows}.numpy()\n"
    whole = run(source).names.get("whole")
    return whole if isinstance(whole, np.ndarray) else None
