"""The choice: of all codes, the one nearest to the input."""

import numpy as np

from vq_reference import nearest
from vq_reference.testing import bounds
from vq_reference.testing.choice import compared, tolerated
from vq_reference.testing.law import law
from vq_reference.testing.measure import assert_within
from vq_reference.testing.strategies import REGULAR, cases, crowds, near_ties

OORD = "van den Oord et al., arXiv 1711.00937, eq. 1"
CHOICE = {"indices"}
regular = cases(places=REGULAR, most_codes=12) | crowds() | near_ties()


def excess(implementation, case):
    """Return how much farther, squared, the chosen code is than the nearest, (N,), the tokens, and both codes."""
    indices = implementation.build(case.reference)(case.x).indices
    x, codes = compared(implementation, case)
    squares = nearest.distances(x, codes) ** 2
    rows = np.arange(len(x))
    best = squares.argmin(axis=1)
    return squares[rows, indices] - squares[rows, best], x, codes[indices], codes[best]


@law("nearest.choice", level="must", source=OORD, needs=CHOICE, case=regular)
def test_no_other_code_is_nearer(implementation, case):
    """The selected code is the nearest one in the declared metric, up to the rounding of ‖x‖² − 2x·c + ‖c‖²."""
    extra, x, chosen, best = excess(implementation, case)
    bound = tolerated(implementation, x, chosen, best)
    assert_within("‖x − q‖² − min ‖x − c‖²", extra, 0.0, bound)


@law("nearest.offset", level="should", source=OORD, needs=CHOICE | {"euclidean"}, case=crowds())
def test_a_common_offset_does_not_spoil_the_choice(implementation, case):
    """The selected code is the nearest one up to the rounding of x − c, though x and c share a large offset."""
    extra, x, chosen, best = excess(implementation, case)
    bound = bounds.excess_by_difference(x, chosen, best, implementation.precision.unit_roundoff)
    assert_within("‖x − q‖² − min ‖x − c‖²", extra, 0.0, bound)
