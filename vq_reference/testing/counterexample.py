"""What is said about a law that did not hold: the smallest input, expected, actual, bound and where it comes from."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from vq_reference.testing.adapters.implementation import Implementation
from vq_reference.testing.border import Border
from vq_reference.testing.derivation import bounds_of
from vq_reference.testing.known_bugs import fitting
from vq_reference.testing.law import Law
from vq_reference.testing.measure import LawBroken
from vq_reference.testing.script import NoScript, script
from vq_reference.testing.verdict import Counterexample

# of an array in a report: more entries than a reader compares by eye
ENTRIES = 40


def examine(
    law: Law, tested: Implementation, border: Border, error: Exception, versions: Mapping[str, str]
) -> Counterexample:
    """Return what a report says about a law that ended with `error`; border: what crossed it last."""
    try:
        source, no_script = script(law, tested, border, error, versions), ""
    except NoScript as reason:
        source, no_script = "", str(reason)
    inputs = tuple(line for name, value in getattr(error, "drawn", {}).items() for line in described(name, value))
    found = Counterexample(inputs, script=source, no_script=no_script)
    if not isinstance(error, LawBroken):
        return found
    worst = error.worst
    return dataclasses.replace(
        found,
        what=error.what,
        where=worst,
        expected=float(error.expected[worst]),
        actual=float(error.actual[worst]),
        bound=float(error.bound[worst]),
        margin=float(error.margins[worst]),
        derivations=tuple(f"{bound.name}: {bound.derivation}" for bound in bounds_of(law.check)),
        fits=fitting(error, border.reference),
    )


def described(name: str, value: Any) -> Iterator[str]:
    """Yield a line for each array and number of a drawn value, by its path.

    >>> list(described("count", 2))
    ['count = 2']
    """
    if dataclasses.is_dataclass(value):
        for part in dataclasses.fields(value):
            yield from described(f"{name}.{part.name}", getattr(value, part.name))
    elif isinstance(value, tuple):
        for i, part in enumerate(value):
            yield from described(f"{name}[{i}]", part)
    elif isinstance(value, np.ndarray):
        shown = np.array2string(value, threshold=ENTRIES, edgeitems=2, separator=", ", formatter={"float": _number})
        yield f"{name} = " + shown.replace("\n", "\n" + " " * (len(name) + 3))
    elif value is not None:
        yield f"{name} = {value!r}"


def _number(value: np.floating[Any]) -> str:
    """Write a float so that it reads back the same: 2, not 2.0 nor 2.000000000000000e+00."""
    return repr(float(value)).removesuffix(".0")
