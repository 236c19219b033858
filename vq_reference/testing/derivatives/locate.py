"""From a direction in which the derivatives differ to one entry of the Jacobian that does."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from vq_reference.testing.derivatives.compare import compare
from vq_reference.testing.derivatives.probe import Probe, along, single
from vq_reference.testing.derivatives.report import Comparison
from vq_reference.testing.derivatives.sides import DeclaredFunction, entries, vector_products
from vq_reference.testing.derivatives.step import Floats, steps
from vq_reference.testing.derivatives.subject import Outputs, Point, Program


def locate(subject: Program, declared: DeclaredFunction, probe: Probe, row: int, outputs: Outputs) -> Comparison:
    """Return one entry that differs, for the number `row` of a directional probe that does.

    Halving: the difference along a direction is the sum of those along two halves of it, so the larger one is followed
    down to one input coordinate (4 runs a level); then the same on the output's entries, which needs no more runs.
    """
    name, weight = probe.cotangents[row]
    with vector_products(subject) as (_, _, product):
        gradient = {tensor: g.to(torch.float64) for tensor, g in product(name, weight).items()}
    tensor, k = _input_coordinate(declared, probe, row, gradient)
    direction, unit = along(subject.origin[tensor], k)
    h = steps(declared.unit_roundoff)[0]

    def column_of(found: Outputs) -> Floats:
        return entries({name: found[name]})

    slopes = declared.slope({tensor: direction}, column_of, h, np.zeros(1), column_of(declared.outputs))
    column = torch.from_numpy(slopes.value / unit).to(weight)
    with vector_products(subject) as (_, _, product):

        def autograd(cotangent: Tensor) -> Tensor:
            return product(name, cotangent)[tensor].to(torch.float64)

        one = _output_entry(weight, column, lambda masked: float(autograd(masked).flatten()[k]))
        entry = single(subject, name, one, tensor, k, autograd(one))
    return compare(declared, entry, outputs)[0]


def _input_coordinate(declared: DeclaredFunction, probe: Probe, row: int, gradient: Point) -> tuple[str, int]:
    """Return the tensor and the entry of it that the difference along the probe's direction comes from."""
    for tensor, g in gradient.items():
        if not bool(g.isfinite().all()):
            return tensor, int((~g.isfinite()).flatten().int().argmax())
    h, zero, here = steps(declared.unit_roundoff)[0], np.zeros(1), probe.measure(declared.outputs)

    def difference(part: Point) -> float:
        found = declared.slope(part, probe.measure, h, zero, here).value[row]
        return float(sum(float((gradient[name] * v).sum()) for name, v in part.items()) - found)

    part, of_part = dict(probe.direction), difference(probe.direction)
    while sum(int((v != 0).sum()) for v in part.values()) > 1:
        half, rest = _halves(part)
        of_half = difference(half)
        of_rest = of_part - of_half
        part, of_part = (half, of_half) if abs(of_half) >= abs(of_rest) else (rest, of_rest)
    return next((name, int(v.flatten().abs().argmax())) for name, v in part.items() if bool((v != 0).any()))


def _halves(part: Point) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Split the entries of a direction that are not zero into two halves, in order."""
    places = [(name, int(i)) for name, v in part.items() for i in v.flatten().nonzero().flatten()]
    first = places[: len(places) // 2]
    half = {name: torch.zeros_like(v, memory_format=torch.contiguous_format) for name, v in part.items()}
    for name in half:
        chosen = [i for owner, i in first if owner == name]
        half[name].view(-1)[chosen] = part[name].flatten()[chosen]
    return half, {name: v - half[name] for name, v in part.items()}


def _output_entry(weight: Tensor, column: Tensor, autograd: Callable[[Tensor], float]) -> Tensor:
    """Return weights that single out the entry of the output that the difference at one coordinate comes from."""
    flat, lo, hi = weight.flatten(), 0, weight.numel()
    while hi - lo > 1:
        middle = (lo + hi) // 2
        apart = []
        for start, end in ((lo, middle), (middle, hi)):
            masked = torch.zeros_like(flat)
            masked[start:end] = flat[start:end]
            apart.append(abs(autograd(masked.reshape(weight.shape)) - float((masked * column).sum())))
        # not a number counts as the larger one
        lo, hi = (middle, hi) if not apart[0] >= apart[1] and apart[0] == apart[0] else (lo, middle)
    one = torch.zeros_like(flat)
    one[lo] = flat[lo]
    return one.reshape(weight.shape)
