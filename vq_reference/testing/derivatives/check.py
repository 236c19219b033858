"""`check_gradient`: does autograd compute the derivative that a program declares?"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from vq_reference.testing.derivatives.findings import Findings, along_directions, entry_by_entry
from vq_reference.testing.derivatives.probe import directional, every_entry
from vq_reference.testing.derivatives.report import Agreement, GradientReport
from vq_reference.testing.derivatives.sides import DeclaredFunction
from vq_reference.testing.derivatives.state import compiling_nothing, default_dtype
from vq_reference.testing.derivatives.subject import Program
from vq_reference.testing.derivatives.tape import DivergedError


def check_gradient(
    function: Callable[..., Any],
    inputs: Any = (),
    *,
    kwargs: Mapping[str, Any] | None = None,
    wrt: Sequence[Tensor | str] | None = None,
    declared: Mapping[type, Callable[..., Any]] | None = None,
    dtype: torch.dtype = torch.float64,
    directions: int = 1,
    full: bool = False,
    seed: int = 0,
) -> GradientReport:
    """Compare autograd with finite differences of the function that a program with stop-gradients declares.

    That function is the one in which every stopped value (detach, no_grad, argmin, round, item, a random draw …) is a
    constant: it is recorded at the given point and replayed beside it. Agreement says that a program is consistent
    with its own stops, and nothing about whether they stand in the right place: a stop too few is consistent too.

    function: an ``nn.Module``, or a callable that takes tensors and returns tensors, nested in dicts, lists, tuples or
    dataclasses. Of a compiled one the eager original is checked. Modules that a callable reaches through its closure
    or globals belong to it. It runs on copies, in float64, so that neither its parameters, buffers and attributes nor
    the random number generators are changed.
    inputs, kwargs: what to call it with; any shapes, any dtypes. One tensor, or a sequence of arguments.
    wrt: what to differentiate by, as tensors or by name (``inputs[0]``, ``transform.weight``). By default all floating
    inputs and all parameters that require a gradient.
    declared: custom autograd.Function -> plain function, with stops in it, whose derivative the custom one claims to
    return. A custom Function that is on the way and not named here cannot be followed.
    dtype: float32 for a program that casts to it by itself, and so cannot run in float64. Errors are that dtype's.
    directions: how many random directions, four runs each where the first step settles it.
    full: every entry of the Jacobians instead, four runs an input coordinate; see `GradientReport.jacobians`.

    The comparison has no tolerance: the bound is the error of the finite difference (`step.slope`, `compare.noise_of`).
    Returns a `GradientReport`; raises TypeError or ValueError for arguments that make no sense, and whatever the
    program raises.

    >>> import torch
    >>> x = torch.tensor([0.25, 1.5, -0.75])
    >>> straight_through = lambda x: x + (x.round() - x).detach()
    >>> print(check_gradient(straight_through, x).verdict.value)
    agrees
    >>> def tampered(x):
    ...     y = x**2
    ...     y.register_hook(lambda g: 0.5 * g)
    ...     return y
    >>> found = check_gradient(tampered, x, full=True).discrepancy
    >>> print(f"{found.of}: autograd {found.autograd:.6g}, declared {found.declared:.6g}")
    d output[1] / d inputs[0][1]: autograd 1.5, declared 3
    """
    if directions < 1:
        raise ValueError(f"directions is {directions}: expected at least 1")
    if dtype not in (torch.float64, torch.float32):
        raise ValueError(f"dtype is {dtype}: expected torch.float64 or torch.float32")
    subject = Program(function, inputs, kwargs or {}, wrt, dtype)
    notes: tuple[str, ...] = ()
    if subject.hooked_late:
        notes += (f"hooks on .grad, which run after autograd, are not checked: {', '.join(subject.hooked_late)}",)
    if subject.was_compiled:
        notes += ("compiled: what was checked is the eager original",)
    with compiling_nothing(), default_dtype(dtype):  # once, not in every run
        plan = every_entry(subject, seed) if full else directional(subject, directions, seed)
        if not plan.outputs:
            reason = f"no output carries a gradient to {', '.join(subject.origin)}"
            return GradientReport(Agreement.CANNOT_TELL, reason, passes=subject.passes, notes=notes)
        other = DeclaredFunction(subject, declared or {})
        obstacles = list(other.obstacles)
        if not obstacles and other.outputs.keys() != plan.outputs.keys():
            obstacles = ["in a second run at the same point, other outputs carry a gradient"]
        if other.coarsest is not torch.float64:
            notes += (f"a gradient passes {other.coarsest}: the errors are that dtype's",)
        found = Findings()
        if not obstacles:
            try:
                found = (entry_by_entry if full else along_directions)(subject, other, plan, seed)
            except DivergedError as way:
                obstacles = [f"beside the point the program does something else: {way}"]
    verdict, reason = (Agreement.CANNOT_TELL, "; ".join(obstacles)) if obstacles else found.verdict()
    without = plan.without(other.operations * torch.finfo(torch.float64).eps / 2)
    return GradientReport(
        verdict,
        reason,
        found.comparisons,
        found.discrepancy,
        found.jacobians,
        tuple(other.tape.stops),
        without,
        subject.passes,
        notes,
    )
