"""Comparisons along one direction: autograd's slopes against the declared function's, with the bound of their error."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vq_reference.testing.derivatives.probe import Probe
from vq_reference.testing.derivatives.report import Agreement, Comparison
from vq_reference.testing.derivatives.sides import DeclaredFunction
from vq_reference.testing.derivatives.step import Floats, Slope, overruled, resolution, settle, steps
from vq_reference.testing.derivatives.subject import Outputs


@dataclass(frozen=True)
class Compared(Sequence[Comparison]):
    """The comparisons of a probe's numbers, as arrays; each is made when it is asked for.

    autograd, declared, error, scale, agrees, differs: an entry for each number, see `Comparison`. why: number -> the
    reason why it cannot be told.
    """

    probe: Probe
    autograd: Floats
    declared: Floats
    error: Floats
    scale: Floats
    agrees: NDArray[np.bool_]
    differs: NDArray[np.bool_]
    why: Callable[[int], str]

    def __len__(self) -> int:
        return len(self.autograd)

    def __getitem__(self, k: int) -> Comparison:  # type: ignore[override]
        autograd, declared, error, scale = (
            float(number[k]) for number in (self.autograd, self.declared, self.error, self.scale)
        )
        if self.agrees[k] or self.differs[k]:
            verdict, reason = Agreement.AGREES if self.agrees[k] else Agreement.DIFFERS, ""
        else:
            verdict, reason = Agreement.CANNOT_TELL, self.why(k)
        return Comparison(self.probe.name(k), autograd, declared, error, scale, verdict, reason)

    def badness(self, k: int) -> tuple[int, float]:
        """Return how far a number is from agreeing, to be ordered by: 2 where it differs, 1 undecided; the distance."""
        apart = abs(float(self.autograd[k] - self.declared[k]))
        return 2 if self.differs[k] else 0 if self.agrees[k] else 1, np.inf if np.isnan(apart) else apart

    def worst(self, rows: slice = slice(None)) -> int:
        """Return which of the numbers is the furthest from agreeing."""
        return max(range(len(self))[rows], key=self.badness)


def compare(declared: DeclaredFunction, probe: Probe, outputs: Outputs) -> Compared:
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
    here = probe.measure(declared.outputs)
    apart = np.abs(probe.measure(outputs) - here)
    # a gradient that is nothing but autograd's own rounding is zero: the value then says what an error is small beside
    scale = np.where(probe.pull <= n * u * size, size, probe.pull)
    slopes: list[Slope] = []
    agrees = np.zeros(len(probe.autograd), dtype=bool)
    value, error = np.zeros((2, len(probe.autograd)))
    for h in steps(u):
        noise = rounding + n * u * 2 * h * probe.pull + apart
        slopes.append(slope := declared.slope(probe.direction, probe.measure, h, noise, here))
        off = slope.error
        fits = ~agrees & (np.abs(probe.autograd - slope.value) <= off) & (off <= resolution(u) * scale)
        if len(slopes) > 1:
            fits &= ~overruled(probe.autograd, slopes)
        value, error = np.where(fits, slope.value, value), np.where(fits, off, error)
        agrees |= fits
        if agrees.all():
            break
    else:
        best, doubt = settle(slopes)
        value, error = np.where(agrees, value, best), np.where(agrees, error, doubt)
    differs = ~agrees & np.isfinite(error) & ~(np.abs(probe.autograd - value) <= error)
    moved = sorted(declared.tape.moved)

    def why(k: int) -> str:
        return _reason(slopes, k, moved, float(apart[k]), float(rounding[k]))

    unit = probe.unit
    size_of_unit = abs(unit)
    return Compared(
        probe, probe.autograd / unit, value / unit, error / size_of_unit, scale / size_of_unit, agrees, differs, why
    )


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
