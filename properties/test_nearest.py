"""What the choice of a code does not depend on: scale, offset, the order of the codes, the other tokens."""

import dataclasses

import numpy as np
from hypothesis import assume
from hypothesis import strategies as st

from vq_reference import nearest
from vq_reference.simvq import SimVQ
from vq_reference.testing.interface.subjects import REGULAR, Case
from vq_reference.testing.laws.assertions import assert_within
from vq_reference.testing.laws.bounds import bounds
from vq_reference.testing.laws.expected.nearest import compared, decided, tolerated
from vq_reference.testing.laws.law import law
from vq_reference.testing.laws.strategies.simvq_cases import cases, crowds, large_codebooks, near_ties

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


def chosen(implementation, case):
    """Return the selected codes, (N, D): codes drawn twice are one code, whatever their indices."""
    return case.codes[implementation.build(case.reference)(case.x).indices]


def assert_same_choice(implementation, case, changed, original):
    """Compare two tables of selected codes where rounding cannot change the choice."""
    sure = decided(implementation, case)
    assert_within("selected code", changed[sure], original[sure], 0.0)


@law("nearest.scale", level="must", source=OORD, needs=CHOICE, case=cases(), exponent=st.sampled_from([-3, 1, 4]))
def test_scaling_inputs_and_codes_alike_changes_no_choice(implementation, case, exponent):
    """Multiplying inputs and codes by a power of two changes no index."""
    scale = 2.0**exponent
    reference = dataclasses.replace(case.reference, frozen_codebook=case.reference.frozen_codebook * scale)
    changed = chosen(implementation, Case(reference, case.x * scale)) / scale
    assert_same_choice(implementation, case, changed, chosen(implementation, case))


@law("nearest.permuted", level="must", source=OORD, needs=CHOICE, case=cases(most_codes=8), data=st.data())
def test_permuting_the_codes_permutes_the_indices(implementation, case, data):
    """Which code is selected does not depend on the order of the codebook."""
    order = data.draw(st.permutations(range(len(case.codes))), label="order of the codes")
    reference = dataclasses.replace(case.reference, frozen_codebook=case.reference.frozen_codebook[order])
    permuted = Case(reference, case.x)
    assert_same_choice(implementation, case, chosen(implementation, permuted), chosen(implementation, case))


@law("nearest.fixed_point", level="must", source=OORD, needs=CHOICE, case=cases(most_codes=8))
def test_a_code_is_mapped_to_itself(implementation, case):
    """An input that is a code of the codebook is mapped to that code."""
    on_codes = Case(case.reference, case.codes)
    assert_same_choice(implementation, on_codes, chosen(implementation, on_codes), case.codes)


@law("nearest.every_code", level="must", source=OORD, needs=CHOICE, case=large_codebooks())
def test_every_code_of_a_large_codebook_can_be_chosen(implementation, case):
    """An input that is a code is mapped to that code in codebooks of hundreds, up to the last one."""
    assert_same_choice(implementation, case, chosen(implementation, case), case.x)


@law("nearest.valid", level="must", source="an index names a code", needs=CHOICE, case=cases(most_codes=8))
def test_every_index_names_a_code(implementation, case):
    """Every index lies between 0 and the number of codes, one for each token."""
    indices = implementation.build(case.reference)(case.x).indices
    middle = (len(case.codes) - 1) / 2
    assert_within("index − (K − 1)/2", indices - np.full(len(case.x), middle), 0.0, max(middle, 0.5))


def on_a_grid(case):
    """Return the case with inputs and codes rounded to multiples of 2^−6, of which small offsets lose no digit."""
    grid = 2.0**-6
    layer = case.reference.transform[0]
    frozen = np.round(case.codes / grid) * grid @ layer.weight / float(np.max(np.abs(layer.weight))) ** 2
    return Case(SimVQ(frozen, (layer,), case.reference.estimator), np.round(case.x / grid) * grid)


@law(
    "nearest.translated",
    level="must",
    source=OORD,
    needs=CHOICE | {"euclidean"},
    case=cases().map(on_a_grid),
    step=st.sampled_from([1.0, -8.0]),
)
def test_moving_inputs_and_codes_alike_changes_no_choice(implementation, case, step):
    """Adding the same number to every entry of inputs and codes changes no index."""
    layer = case.reference.transform[0]
    frozen = (case.codes + step) @ layer.weight / float(np.max(np.abs(layer.weight))) ** 2
    moved = Case(dataclasses.replace(case.reference, frozen_codebook=frozen), case.x + step)
    assume(np.array_equal(implementation.precision.round(moved.x), moved.x))
    assume(np.array_equal(implementation.precision.round(moved.codes), moved.codes))
    sure = decided(implementation, moved) & decided(implementation, case)
    assert_within("selected code", chosen(implementation, moved)[sure] - step, chosen(implementation, case)[sure], 0.0)
