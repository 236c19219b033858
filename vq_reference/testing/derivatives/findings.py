"""What the probes of a plan find: comparisons, an entry that differs, and Jacobians where all entries were asked."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice

import numpy as np

from vq_reference.testing.derivatives.compare import Compared, compare
from vq_reference.testing.derivatives.kinks import beside_a_kink
from vq_reference.testing.derivatives.locate import locate
from vq_reference.testing.derivatives.probe import Probe, Probes
from vq_reference.testing.derivatives.report import Agreement, Comparison, Jacobian
from vq_reference.testing.derivatives.sides import DeclaredFunction
from vq_reference.testing.derivatives.subject import Outputs, Program


@dataclass(frozen=True)
class Findings:
    """What was found, as it stands in a `GradientReport`."""

    comparisons: tuple[Comparison, ...] = ()
    discrepancy: Comparison | None = None
    jacobians: tuple[Jacobian, ...] = ()

    def verdict(self) -> tuple[Agreement, str]:
        """Return the verdict, and the reason for it."""
        if self.discrepancy is not None:
            return Agreement.DIFFERS, str(self.discrepancy)
        unsettled = [one.reason for one in self.comparisons if one.verdict is Agreement.CANNOT_TELL]
        return (Agreement.CANNOT_TELL, "; ".join(dict.fromkeys(unsettled))) if unsettled else (Agreement.AGREES, "")


def along_directions(subject: Program, declared: DeclaredFunction, plan: Probes, seed: int) -> Findings:
    """Compare along the plan's directions, up to one in which an output differs; search that for an entry."""
    comparisons: list[Comparison] = []
    for probe in plan.probes:
        compared = _compared(declared, probe, plan.outputs)
        comparisons += compared
        row = compared.worst()
        if compared.differs[row]:
            entry = locate(subject, declared, probe, row, plan.outputs)
            # a backward that is not linear may be wrong in a direction, and in no entry by itself
            one = entry if entry.verdict is Agreement.DIFFERS else compared[row]
            return _unless_beside_a_kink(Findings(tuple(comparisons), one), probe.owners[row], subject, declared, seed)
    return Findings(tuple(comparisons))


def entry_by_entry(subject: Program, declared: DeclaredFunction, plan: Probes, seed: int) -> Findings:
    """Compare every entry: the plan has a probe for each coordinate of each tensor, in order."""
    columns = iter([_compared(declared, probe, plan.outputs) for probe in plan.probes])
    jacobians: list[Jacobian] = []
    for tensor, x in subject.origin.items():
        jacobians += _jacobians(tensor, x.shape, list(islice(columns, x.numel())), plan.outputs)
    found = Findings(tuple(one.worst for one in jacobians), jacobians=tuple(jacobians))
    differing = [one for one in jacobians if one.worst.verdict is Agreement.DIFFERS]
    if not differing:
        return found
    worst = max(differing, key=lambda one: one.worst.apart)
    return _unless_beside_a_kink(replace(found, discrepancy=worst.worst), worst.output, subject, declared, seed)


def _compared(declared: DeclaredFunction, probe: Probe, outputs: Outputs) -> Compared:
    if not declared.tape.stops:
        # nothing to replay: where the program agrees as it is, there is no more to see
        found = compare(declared.unfollowed(), probe, outputs)
        if found.agrees.all():
            return found
    return compare(declared, probe, outputs)


def _unless_beside_a_kink(
    found: Findings, output: str, subject: Program, declared: DeclaredFunction, seed: int
) -> Findings:
    undecided = beside_a_kink(subject, declared, output, seed)
    if undecided is None:
        return found
    return replace(found, comparisons=(*found.comparisons, undecided), discrepancy=None)


def _jacobians(tensor: str, shape: Sequence[int], columns: list[Compared], outputs: Outputs) -> Iterator[Jacobian]:
    """Yield the Jacobian of each output by the tensor, whose coordinates the columns belong to."""
    first = 0
    for output, y in outputs.items():
        rows, first = slice(first, first + y.numel()), first + y.numel()
        if not columns or not y.numel():
            continue

        def matrix(name: str, rows: slice = rows, whole: tuple[int, ...] = (*y.shape, *shape)) -> np.ndarray:
            return np.stack([getattr(column, name)[rows] for column in columns], axis=1).reshape(whole)

        worst = [column.worst(rows) for column in columns]
        k = max(range(len(columns)), key=lambda k: columns[k].badness(worst[k]))
        agrees, differs = matrix("agrees"), matrix("differs")
        yield Jacobian(
            output,
            tensor,
            matrix("autograd"),
            matrix("declared"),
            matrix("error"),
            differs,
            ~(agrees | differs),
            columns[k][worst[k]],
        )
