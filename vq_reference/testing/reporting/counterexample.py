"""What is said about a law that did not hold: the smallest input, expected, actual, bound and where it comes from."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from vq_reference.simvq import SimVQ
from vq_reference.testing.cases.case import encoded
from vq_reference.testing.interface.implementation import Call, Cotangent, Implementation
from vq_reference.testing.laws.assertions import LawBroken
from vq_reference.testing.laws.law import Law
from vq_reference.testing.laws.verdict import Counterexample
from vq_reference.testing.recording.calls import Border
from vq_reference.testing.reporting.known_bugs import features, fitting

# of an array in a report: more entries than a reader compares by eye
ENTRIES = 40
# the fields of a SimVQ that its effective codes are made of
FROZEN = ("frozen_codebook", "transform")


def examine(
    law: Law, tested: Implementation, border: Border, error: Exception, versions: Mapping[str, str]
) -> Counterexample:
    """Return what a report says about a law that ended with `error`; border: what crossed it last."""
    # they import torch, which takes longer than most laws, and what holds needs no script
    from vq_reference.testing.adapters.codegen.source import NoScript
    from vq_reference.testing.reporting.repro.script import script

    try:
        source, no_script = script(law, tested, border, error, versions), ""
    except NoScript as reason:
        source, no_script = "", str(reason)
    whole = bool(law.needs & {"transform", "mlp"})
    drawn = getattr(error, "drawn", {}).items()
    inputs = tuple(line for name, value in drawn for line in described(name, value, whole))
    case = exact_input(tested, border)
    found = Counterexample(inputs, script=source, no_script=no_script, case=case)
    if not isinstance(error, LawBroken):
        return found
    worst, x = error.worst, None if border.last is None else border.last.x
    return dataclasses.replace(
        found,
        what=error.what,
        where=worst,
        expected=float(error.expected[worst]),
        actual=float(error.actual[worst]),
        bound=float(error.bound[worst]),
        margin=float(error.margins[worst]),
        derivations=tuple(f"{name}: {derivation}" for derivation, name in getattr(error, "bounds", {}).items()),
        fits=(
            *fitting(error, border.reference),
            *features(error, x, tested.precision),
        ),
    )


def exact_input(tested: Implementation, border: Border) -> dict[str, Any] | None:
    """Return layer, dtype and input of the last call, encoded as in the file of a case."""
    call = border.last
    if call is None or call.how != Call():
        return None
    layer, x = call.reference, call.x
    start = call.cotangents[0] if call.cotangents else Cotangent(np.zeros_like(x), 0.0)
    found: dict[str, Any] = encoded(
        {
            "dtype": tested.precision.name,
            "layer": {
                "object": "SimVQ",
                "estimator": layer.estimator,
                "beta": float(layer.beta),
                "commitment_weight": float(layer.commitment_weight),
                "frozen_codebook": np.asarray(layer.frozen_codebook, np.float64),
                "transform": [{"weight": each.weight, "bias": each.bias} for each in layer.transform],
            },
            "x": np.asarray(x, np.float64),
            "mask": None,
            "g_output": np.asarray(start.output, np.float64),
            "g_losses": np.array([float(start.loss)]),
        }
    )
    return found


def described(name: str, value: Any, whole: bool = False) -> Iterator[str]:
    """Yield a line for each array and number of a drawn value, by its path.

    Of a SimVQ the effective codes, which are what every implementation holds; whole: the frozen ones and the transform
    that they come of too, for a law that is about those.

    >>> list(described("count", 2))
    ['count = 2']
    """
    if isinstance(value, SimVQ):
        yield from described(f"{name}.codes", value.codebook)
    if dataclasses.is_dataclass(value):
        for part in dataclasses.fields(value):
            if whole or not isinstance(value, SimVQ) or part.name not in FROZEN:
                yield from described(f"{name}.{part.name}", getattr(value, part.name), whole)
    elif isinstance(value, tuple):
        for i, part in enumerate(value):
            yield from described(f"{name}[{i}]", part, whole)
    elif isinstance(value, np.ndarray):
        shown = np.array2string(value, threshold=ENTRIES, edgeitems=2, separator=", ", formatter={"float": _number})
        yield f"{name} = " + shown.replace("\n", "\n" + " " * (len(name) + 3))
    elif value is not None:
        yield f"{name} = {value!r}"


def _number(value: np.floating[Any]) -> str:
    """Write a float so that it reads back the same: 2, not 2.0 nor 2.000000000000000e+00."""
    return repr(float(value)).removesuffix(".0")
