"""What is said about a law that did not hold: the smallest input, expected, actual, bound and where it comes from."""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from types import FunctionType, ModuleType
from typing import Any

import numpy as np

from vq_reference.testing.adapters.implementation import Implementation
from vq_reference.testing.border import Border
from vq_reference.testing.known_bugs import fitting
from vq_reference.testing.law import Law
from vq_reference.testing.measure import LawBroken
from vq_reference.testing.script import NoScript, script
from vq_reference.testing.verdict import Counterexample

# of an array in a report: more entries than a reader compares by eye
ENTRIES = 40


@dataclass(frozen=True)
class Bound:
    """A function of a module of bounds, by its name, and how it is derived: its docstring."""

    name: str
    derivation: str


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
        shown = np.array2string(value, threshold=ENTRIES, edgeitems=2, separator=", ", floatmode="unique")
        yield f"{name} = " + shown.replace("\n", "\n" + " " * (len(name) + 3))
    elif value is not None:
        yield f"{name} = {value!r}"


def bounds_of(check: Callable[..., None]) -> list[Bound]:
    """Return the bounds that a law names: itself or in a helper of its module, else in what they call elsewhere."""
    near = list(dict.fromkeys(_named(check, {check.__module__}, set())))
    return near or list(dict.fromkeys(_named(check, {check.__module__, *_ours(check)}, set())))


def _ours(check: Callable[..., None]) -> set[str]:
    found = (getattr(value, "__module__", None) for value in check.__globals__.values())
    return {name for name in found if name and name.startswith("vq_reference.testing.")}


def _named(function: Any, modules: set[str], seen: set[Any]) -> Iterator[Bound]:
    seen.add(function)
    used = function.__code__.co_names
    for name in used:
        value = function.__globals__.get(name)
        if isinstance(value, ModuleType) and value.__name__.startswith("vq_reference.testing.bounds"):
            for attribute in used:
                bound = getattr(value, attribute, None)
                if isinstance(bound, FunctionType) and bound.__module__ == value.__name__:
                    yield Bound(bound.__name__, " ".join((inspect.getdoc(bound) or "").split()))
        elif isinstance(value, FunctionType) and value.__module__ in modules and value not in seen:
            yield from _named(value, modules, seen)
