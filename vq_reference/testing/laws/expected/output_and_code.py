"""What the output has to be: the code."""

from __future__ import annotations

from vq_reference.arguments import Array
from vq_reference.testing.interface.implementation import Implementation
from vq_reference.testing.interface.subjects import Case


def output_and_code(implementation: Implementation, case: Case) -> tuple[Array, Array]:
    """Return the output and the codes that were chosen, both (N, D)."""
    answer = implementation.build(case.reference)(case.x)
    return answer.output, case.codes[answer.indices]
