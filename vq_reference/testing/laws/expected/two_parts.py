"""A case in two parts, of which the loss of the whole is made."""

from __future__ import annotations

import numpy as np
from hypothesis import assume
from hypothesis import strategies as st

from vq_reference.testing.interface.implementation import Answer, Cotangent, Implementation
from vq_reference.testing.interface.subjects import Case
from vq_reference.testing.laws.expected.nearest import decided


def sure_of_every_token(implementation: Implementation, case: Case) -> None:
    """Leave out cases in which rounding may change a choice: these laws compare two calls."""
    assume(decided(implementation, case).all())


def in_two_parts(
    implementation: Implementation, case: Case, data: st.DataObject
) -> tuple[list[Answer], tuple[float, float]]:
    """Return one answer on the whole batch, one on each of two parts, and the weights that put them together again."""
    assume(len(case.x) > 1)
    sure_of_every_token(implementation, case)
    cut = data.draw(st.integers(1, len(case.x) - 1), label="first part's size")
    layer = implementation.build(case.reference)
    answers = [layer(x, [Cotangent(np.zeros_like(x), 1.0)]) for x in (case.x, case.x[:cut], case.x[cut:])]
    share = cut / len(case.x)
    return answers, (share, 1 - share) if implementation.loss_reduction == "mean" else (1.0, 1.0)
