"""What an implementation gives for the input of a case, and where that is not what right code gives."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch

from vq_reference.arguments import Array
from vq_reference.simvq import SimVQ
from vq_reference.testing.cases.case import PinnedCase
from vq_reference.testing.cases.expected import sim_vq_of
from vq_reference.testing.interface.implementation import Call, Cotangent, Layer
from vq_reference.testing.interface.stateful import LastingLayer, Start, Use

# as many as make it certain that a call is among them which drops what the case drops: 2^-64 that none is
DRAWS = 64

# None: no gradient path leads there
Measured = dict[str, Array | None]


class Makers(NamedTuple):
    """How a package makes the layers of cases. sim_vq: in a dtype. lasting: of a case's layer."""

    sim_vq: Callable[[SimVQ, str], Layer]
    lasting: Callable[[PinnedCase], LastingLayer]


class Fault(NamedTuple):
    """One quantity that is not as it has to be: what it is, and the kind of it in the words of the flags."""

    quantity: str
    kind: str
    message: str


def measure(case: PinnedCase, makers: Makers) -> Measured:
    """Call the layer of the case once, forward and backward; raises whatever the implementation raises."""
    return _measure_sim_vq(case, makers) if case.layer["object"] == "SimVQ" else _measure_lasting(case, makers)


def faults(case: PinnedCase, measured: Measured | str) -> list[Fault]:
    """Return what is wrong with what was measured. A string: it raised, and said this."""
    if isinstance(measured, str):
        return [Fault("answer", "no_answer", measured)]
    found = []
    for quantity, expected in case.expected.items():
        actual, bound = measured.get(quantity), case.bound[quantity]
        if actual is None and np.any(expected):
            found.append(Fault(quantity, "no_gradient", f"{quantity}: no gradient arrives"))
            continue
        actual = np.zeros_like(expected) if actual is None else np.asarray(actual, np.float64)
        if actual.size != expected.size:
            found.append(Fault(quantity, "no_answer", f"{quantity} has {actual.shape}, expected {expected.shape}"))
            continue
        present = _present(case, expected)
        with np.errstate(invalid="ignore", over="ignore"):
            error = np.abs(actual.reshape(expected.shape) - expected)
            beyond = present & ~(error <= bound)
        if beyond.any():
            worst = tuple(np.argwhere(beyond)[0])
            kind = "gradient" if quantity.startswith("gradient") else "value"
            message = f"{quantity}{list(map(int, worst))} is {actual.reshape(expected.shape)[worst]:.9g}"
            found.append(Fault(quantity, kind, f"{message}, expected {expected[worst]:.9g} within {bound[worst]:.3g}"))
    return found


def _present(case: PinnedCase, expected: Array) -> Array:
    """Say which entries count: what comes out of padding is a convention."""
    if case.mask is None or len(expected) != case.mask.size:
        return np.ones(expected.shape, dtype=bool)
    return np.broadcast_to(case.mask.reshape(-1, *[1] * (expected.ndim - 1)), expected.shape)


def _measure_sim_vq(case: PinnedCase, makers: Makers) -> Measured:
    layer = makers.sim_vq(sim_vq_of(case.layer), case.dtype)
    x = case.x.reshape(-1, case.x.shape[-1])
    start = Cotangent(case.g_output.reshape(x.shape), float(case.g_losses[0]))
    answer = layer(x, [start], Call(leading=case.x.shape[:-1]))
    (gradients,) = answer.gradients
    return {
        "output": answer.output,
        "indices": answer.indices,
        "losses": np.array([answer.loss]),
        "gradient at x": gradients.x,
        "gradient at the codebook": gradients.codebook,
        **{f"gradient at {name}": value for name, value in gradients.parameters.items()},
    }


def _measure_lasting(case: PinnedCase, makers: Makers) -> Measured:
    kept = case.layer.get("kept")
    for seed in range(DRAWS if kept else 1):
        torch.manual_seed(seed)
        measured = _call_lasting(case, makers.lasting(case))
        left = measured["indices"]
        if kept is None or (left is not None and np.all(left[:, kept - 1] >= 0) and np.all(left[:, kept:] < 0)):
            return measured
    raise AssertionError(f"{DRAWS} calls, and none that keeps {kept} of {len(case.layer['codes'])} layers")


def _call_lasting(case: PinnedCase, layer: LastingLayer) -> Measured:
    x = case.x.reshape(-1, case.x.shape[-1])
    mask = None if case.mask is None else case.mask.reshape(-1)
    start = Start(case.g_output.reshape(x.shape), case.g_losses.tolist())
    reply = layer(x, start, Use(leading=case.x.shape[:-1]), mask)
    assert reply.reached is not None
    codes = [value for name, value in reply.reached.parameters.items() if not name.startswith("project")]
    return {
        "output": reply.output,
        "indices": reply.indices,
        "losses": reply.losses,
        "gradient at x": reply.reached.x,
        "gradient at the codebook": codes[0] if codes else None,
        "codes after the step": layer.codes(),
    }
