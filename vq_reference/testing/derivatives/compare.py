"""One comparison: autograd's slope against the declared function's, with the bound that the latter's error gives."""

from __future__ import annotations

import numpy as np

from vq_reference.testing.derivatives.probe import Probe
from vq_reference.testing.derivatives.report import Comparison, Verdict
from vq_reference.testing.derivatives.sides import DeclaredFunction
from vq_reference.testing.derivatives.step import Slope, overruled, resolution, settle, steps
from vq_reference.testing.derivatives.subject import Outputs


def compare(declared: DeclaredFunction, probe: Probe, outputs: Outputs) -> list[Comparison]:
    """Compare each number's slope; `outputs` are those of the run that autograd's side is of.

    Rounding error in a value: a chain of n operations, each of them backward stable, returns f(x(1 + δ))(1 + η) with
    |δ|, |η| ≤ n·u to first order (Higham, Accuracy and Stability of Numerical Algorithms, §1.5), which is at most
    n·u·(|f| + Σ|∂f/∂x · x|) off. Both terms grow by at most h·Σ|∂f/∂x · direction| at the ends of a step h. Two of the
    n are not the program's: a step to x + h·direction is a product and a sum. To that comes how far the two runs at the
    same point were apart.

    A number agrees when at one of three steps the two slopes are no further apart than that step's error, this error
    is small beside the gradient, and no sharper step that saw the same slope says otherwise (`step.overruled`). It
    differs when, at the best step, they are further apart than the error and the distance to another step together.
    The later steps are taken only when the first does not settle it.
    """
    u, n = declared.unit_roundoff, declared.operations
    size = probe.size(declared.outputs)
    rounding = n * u * (size + probe.reach)
    apart = np.abs(probe.measure(outputs) - probe.measure(declared.outputs))
    # a gradient that is nothing but autograd's own rounding is zero: the value then says what an error is small beside
    scale = np.where(probe.pull <= n * u * size, size, probe.pull)
    slopes: list[Slope] = []
    agrees = np.zeros(len(probe.names), dtype=bool)
    value, error = np.zeros((2, len(probe.names)))
    for h in steps(u):
        noise = rounding + n * u * 2 * h * probe.pull + apart
        slopes.append(slope := declared.slope(probe.direction, probe.measure, h, noise))
        fits = ~agrees & (np.abs(probe.autograd - slope.value) <= slope.error) & (slope.error <= resolution(u) * scale)
        if len(slopes) > 1:
            fits &= ~overruled(probe.autograd, slopes)
        value, error = np.where(fits, slope.value, value), np.where(fits, slope.error, error)
        agrees |= fits
        if agrees.all():
            break
    else:
        best, doubt = settle(slopes)
        value, error = np.where(agrees, value, best), np.where(agrees, error, doubt)
    differs = ~agrees & np.isfinite(error) & ~(np.abs(probe.autograd - value) <= error)
    found = []
    for k, name in enumerate(probe.names):
        a, b = (float(number[k]) / probe.unit for number in (probe.autograd, value))
        e, s = (float(number[k]) / abs(probe.unit) for number in (error, scale))
        if agrees[k] or differs[k]:
            found.append(Comparison(name, a, b, e, s, Verdict.AGREES if agrees[k] else Verdict.DIFFERS))
        else:
            why = _reason(slopes, k, sorted(declared.tape.moved), float(apart[k]), float(rounding[k]))
            found.append(Comparison(name, a, b, e, s, Verdict.CANNOT_TELL, why))
    return found


def _reason(slopes: list[Slope], k: int, moved: list[str], apart: float, rounding: float) -> str:
    best = min(slopes, key=lambda one: float(np.nan_to_num(one.error[k], nan=np.inf)))
    if not np.isfinite(best.error[k]):
        return "the values at or near the point are not finite"
    if apart > rounding:
        return f"two runs at the same point differ, by {apart:.2g}"
    if moved:
        return f"an index of {', '.join(moved)} would change within the step"
    if best.rounding[k] >= best.truncation[k] + best.jump[k]:
        return "rounding hides the derivative: the value is large beside it"
    return f"a kink within the step: the slopes on its two sides differ by {best.jump[k]:.2g}"
