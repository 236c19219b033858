"""What a check found, and how it is said."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from enum import Enum


class Verdict(str, Enum):
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
    verdict: Verdict
    reason: str = ""

    def __str__(self) -> str:
        line = f"{self.of}: autograd {self.autograd:.9g}, declared {self.declared:.9g} ± {self.error:.1e}"
        return f"{line} ({self.reason})" if self.reason else line


@dataclass(frozen=True)
class GradientReport:
    """The verdict on a program's gradient.

    verdict, reason: the answer, and why where it is not `agrees`. discrepancy: one entry of the Jacobian that differs.
    comparisons: each derivative that was taken. stops: operations that stopped a gradient, in order. no_gradient:
    tensors that no output sends a gradient to. passes: how often the program ran. notes: what else to know.
    """

    verdict: Verdict
    reason: str
    comparisons: tuple[Comparison, ...] = ()
    discrepancy: Comparison | None = None
    stops: tuple[str, ...] = ()
    no_gradient: tuple[str, ...] = ()
    passes: int = 0
    notes: tuple[str, ...] = ()

    @property
    def agrees(self) -> bool:
        """Whether the verdict is `agrees`; `cannot tell` is not."""
        return self.verdict is Verdict.AGREES

    def __str__(self) -> str:
        lines = [f"{self.verdict.value}: {self.reason}" if self.reason else self.verdict.value]
        lines += [f"  {comparison}" for comparison in self.comparisons]
        if self.stops:
            lines.append("  stopped: " + ", ".join(f"{name} ×{n}" for name, n in Counter(self.stops).items()))
        if self.no_gradient:
            lines.append("  no gradient: " + ", ".join(self.no_gradient))
        return "\n".join((*lines, *(f"  note: {note}" for note in self.notes)))
