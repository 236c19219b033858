"""One comparison: autograd's slope against the declared function's, with the bound that the latter's error gives."""

from __future__ import annotations

import numpy as np

from vq_reference.testing.derivatives.probe import Probe
from vq_reference.testing.derivatives.report import Comparison, Verdict
from vq_reference.testing.derivatives.sides import DeclaredFunction
from vq_reference.testing.derivatives.step import Floats, Slope, resolution, settle, steps
from vq_reference.testing.derivatives.subject import Outputs


def noise(declared: DeclaredFunction, probe: Probe, outputs: Outputs) -> Floats:
    """Bound the rounding error in each number of a probe.

    A chain of n operations, each of them backward stable, returns f(x(1 + δ))(1 + η) with |δ|, |η| ≤ n·u to first
    order (Higham, Accuracy and Stability of Numerical Algorithms, §1.5): n·u·(|f| + Σ|∂f/∂x · x|) at most. To that
    comes how far two runs at the same point were apart (`outputs` are those of the other run).
    """
    apart = np.abs(probe.measure(outputs) - probe.measure(declared.outputs))
    n = len(declared.tape.events)
    return n * declared.unit_roundoff * (probe.size(declared.outputs) + probe.reach) + apart


def compare(declared: DeclaredFunction, probe: Probe, outputs: Outputs) -> list[Comparison]:
    """Compare each number's slope. A second and a third step are taken only when the first does not settle it."""
    u, n = declared.unit_roundoff, len(declared.tape.events)
    blur = noise(declared, probe, outputs)
    size = probe.size(declared.outputs)
    # a gradient that is nothing but autograd's own rounding is zero: the value then says what an error is small beside
    scale = np.where(probe.pull <= n * u * size, size, probe.pull)
    slopes: list[Slope] = []
    for h in steps(u):
        slopes.append(declared.slope(probe.direction, probe.measure, h, blur))
        value, error = settle(slopes)
        with np.errstate(invalid="ignore"):
            settled = (np.abs(probe.autograd - value) <= error) & (error <= resolution(u) * scale)
        if settled.all():
            break
    moved = sorted(declared.tape.moved)
    found = []
    for k, name in enumerate(probe.names):
        why = ""
        if settled[k]:
            verdict = Verdict.AGREES
        elif np.isfinite(error[k]) and not abs(probe.autograd[k] - value[k]) <= error[k]:
            verdict = Verdict.DIFFERS
        else:
            verdict, why = Verdict.CANNOT_TELL, _reason(slopes, k, moved)
        a, b, e, s = (float(number[k]) / probe.unit for number in (probe.autograd, value, error, scale))
        found.append(Comparison(name, a, b, e, s, verdict, why))
    return found


def _reason(slopes: list[Slope], k: int, moved: list[str]) -> str:
    best = min(slopes, key=lambda one: float(np.nan_to_num(one.error[k], nan=np.inf)))
    if not np.isfinite(best.error[k]):
        return "the values at or near the point are not finite"
    if moved:
        return f"an index of {', '.join(moved)} would change within the step"
    if best.rounding[k] >= best.truncation[k] + best.jump[k]:
        return "rounding hides the derivative, or two runs at the same point differ"
    return f"a kink within the step: the slopes on its two sides differ by {best.jump[k]:.2g}"
