"""Run one law on one mutant: how many examples until it fails, and how small the counterexample becomes."""

from __future__ import annotations

import dataclasses
import functools
import itertools
from typing import Any, NamedTuple

import numpy as np
from hypothesis.errors import UnsatisfiedAssumption

from vq_reference.testing.interface.implementation import Implementation
from vq_reference.testing.interface.subjects import NotApplicable
from vq_reference.testing.laws.law import Law


class Failure(NamedTuple):
    """The first failure of a law: what its check raised, and at which example, counted from 1."""

    error: Exception
    examples: int


class _Stopped(BaseException):
    """Ends hypothesis at the first example that fails: shrinking it takes seconds."""

    def __init__(self, error: Exception) -> None:
        self.error = error


def first_failure(law: Law, implementation: Implementation) -> Failure | None:
    """Run a law with the default profile up to the first example on which its check raises; None where none does.

    Raises NotApplicable where the law's strategy finds nothing to draw for this implementation.
    """
    begun = itertools.count(1)
    examples = 0

    def begin() -> None:
        nonlocal examples
        examples = next(begun)

    @functools.wraps(law.check)
    def check(*given: Any, **drawn: Any) -> None:
        try:
            law.check(*given, **drawn)
        except (UnsatisfiedAssumption, NotApplicable):
            raise
        except Exception as error:
            raise _Stopped(error) from error

    try:
        dataclasses.replace(law, check=check).run(implementation, on_example=begin)
    except _Stopped as stopped:
        return Failure(stopped.error, examples)
    return None


def shrunk_size(law: Law, implementation: Implementation) -> tuple[int, int] | None:
    """Return tokens and dimensions of the smallest counterexample that hypothesis finds; None where x is not drawn.

    Raises ValueError where the law holds.
    """
    try:
        law.run(implementation)
    except Exception as error:
        return _size(getattr(error, "drawn", {}))
    raise ValueError(f"{law.id} holds on {implementation.name}: there is no counterexample")


def _size(drawn: dict[str, Any]) -> tuple[int, int] | None:
    found = [value.shape for name, value in _arrays("", drawn) if name == "x" and value.ndim == 2]
    return max(found, key=lambda shape: shape[0] * shape[1], default=None)


def _arrays(name: str, value: Any) -> list[tuple[str, np.ndarray[Any, Any]]]:
    """Return the arrays of a drawn value, each by the last name on the way to it."""
    if isinstance(value, np.ndarray):
        return [(name, value)]
    if dataclasses.is_dataclass(value):
        value = {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
    if isinstance(value, dict):
        return [found for key, part in value.items() for found in _arrays(key, part)]
    if isinstance(value, tuple):
        return [found for part in value for found in _arrays(name, part)]
    return []
