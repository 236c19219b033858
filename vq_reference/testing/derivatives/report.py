"""What a check found, and how it is said."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum

import numpy as np
from numpy.typing import NDArray

from vq_reference.testing.derivatives.step import Floats

# names in a row
SHOWN = 5


class Agreement(str, Enum):
    """The three answers."""

    AGREES = "agrees"
    DIFFERS = "differs"
    CANNOT_TELL = "cannot tell"


@dataclass(frozen=True)
class Comparison:
    """One derivative, twice.

    of: what was differentiated. autograd, declared: its derivative by autograd, and by differences of the declared
    function. error: of the latter; the difference of the two is compared with it and nothing else. scale: sum of the
    absolute terms that make up the derivative; an error that is not small beside it decides nothing.
    """

    of: str
    autograd: float
    declared: float
    error: float
    scale: float
    verdict: Agreement
    reason: str = ""

    @property
    def apart(self) -> float:
        """The distance of the two derivatives; infinite where one is not a number."""
        apart = abs(self.autograd - self.declared)
        return apart if apart == apart else float("inf")

    def __str__(self) -> str:
        line = f"{self.of}: autograd {self.autograd:.9g}, declared {self.declared:.9g} ± {self.error:.1e}"
        return f"{line} ({self.reason})" if self.reason else line


@dataclass(frozen=True)
class Jacobian:
    """Every derivative of one output by one tensor, twice.

    output, tensor: their names. autograd, declared, error, float64, and differs, undecided, bool: of each entry, as in
    `Comparison`; the output's shape, and the tensor's behind it. worst: the entry that is the furthest from agreeing.
    """

    output: str
    tensor: str
    autograd: Floats
    declared: Floats
    error: Floats
    differs: NDArray[np.bool_]
    undecided: NDArray[np.bool_]
    worst: Comparison

    def __str__(self) -> str:
        size = self.autograd.size
        told = [(int(self.differs.sum()), "differ"), (int(self.undecided.sum()), "cannot be told")]
        counts = ", ".join(f"{n} of {size} entries {what}" for n, what in told if n) or f"{size} entries agree"
        return f"d {self.output} / d {self.tensor}: {counts}; worst {self.worst}"


@dataclass(frozen=True)
class GradientReport:
    """The verdict on a program's gradient.

    verdict, reason: the answer, and why where it is not `agrees`. discrepancy: one entry of the Jacobian that differs.
    comparisons: each derivative that was taken; of full Jacobians the worst of each, and all entries are in jacobians.
    stops: operations that stopped a gradient, in order. no_gradient: each output -> the tensors that it sends none to,
    or nothing but rounding; what none of them reaches is `unreached`. passes: how often the program ran. notes: what
    else to know.
    """

    verdict: Agreement
    reason: str
    comparisons: tuple[Comparison, ...] = ()
    discrepancy: Comparison | None = None
    jacobians: tuple[Jacobian, ...] = ()
    stops: tuple[str, ...] = ()
    no_gradient: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    passes: int = 0
    notes: tuple[str, ...] = ()

    @property
    def agrees(self) -> bool:
        """Whether the verdict is `agrees`; `cannot tell` is not."""
        return self.verdict is Agreement.AGREES

    @property
    def unreached(self) -> tuple[str, ...]:
        """The tensors that no output sends a gradient to."""
        first, *others = self.no_gradient.values() or [()]
        return tuple(tensor for tensor in first if all(tensor in tensors for tensors in others))

    def __str__(self) -> str:
        lines = [f"{self.verdict.value}: {self.reason}" if self.reason else self.verdict.value]
        lines += [f"  {each}" for each in self.jacobians or self.comparisons]
        if self.stops:
            lines.append("  stopped: " + ", ".join(f"{name} ×{n}" for name, n in Counter(self.stops).items()))
        unreached = self.unreached
        if unreached:
            lines.append(f"  no gradient from any output to {_some(unreached)}")
        for output, tensors in self.no_gradient.items():
            others = [tensor for tensor in tensors if tensor not in unreached]
            if others:
                lines.append(f"  no gradient from {output} to {_some(others)}")
        return "\n".join((*lines, *(f"  note: {note}" for note in self.notes)))


def _some(names: Sequence[str]) -> str:
    """Write names in a row; of many the first.

    >>> _some("abc"), _some("abcdefgh")
    ('a, b, c', 'a, b, c, d, e and 3 more')
    """
    shown = names if len(names) <= SHOWN + 1 else names[:SHOWN]
    more = f" and {len(names) - len(shown)} more" if len(shown) < len(names) else ""
    return ", ".join(shown) + more
