"""A derivative that differs beside a kink may do so by chance, and counts for nothing."""

from __future__ import annotations

from vq_reference.testing.derivatives.compare import compare
from vq_reference.testing.derivatives.probe import directional
from vq_reference.testing.derivatives.report import Agreement, Comparison
from vq_reference.testing.derivatives.sides import DeclaredFunction
from vq_reference.testing.derivatives.subject import Program

# 0.295^(1 + 8) < 2e-5, see below
DIRECTIONS = 8


def beside_a_kink(subject: Program, declared: DeclaredFunction, output: str, seed: int) -> Comparison | None:
    """Return a comparison of this output, along another random direction, that is undecided; None where none is.

    One kink shows, since the slopes on its two sides are further apart than autograd and their mean. Several kinks in
    one point need not: ReLUs at zero, which pass Σ cᵢ·max(dᵢ, 0) along d, and 0 by autograd, differ by ½ Σ cᵢdᵢ, and
    from side to side by Σ cᵢ|dᵢ|, in which terms cancel. Of two such sums, which for random d are independent, the
    second is smaller with probability 2/π · atan(½) = 0.295, in each direction anew.
    """
    for probe in directional(subject, DIRECTIONS, seed + 1).probes:
        for one, owner in zip(compare(declared, probe, declared.outputs), probe.owners, strict=True):
            if owner == output and one.verdict is Agreement.CANNOT_TELL:
                return one
    return None
