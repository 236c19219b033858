"""What the choice of a code does not depend on: scale, offset, the order of the codes, the other tokens."""

import dataclasses

import numpy as np
from hypothesis import assume
from hypothesis import strategies as st

from vq_reference.simvq import SimVQ
from vq_reference.testing import bounds
from vq_reference.testing.choice import decided
from vq_reference.testing.law import law
from vq_reference.testing.measure import assert_within
from vq_reference.testing.strategies import Case, cases, crowds, large_codebooks

OORD = "van den Oord et al., arXiv 1711.00937, eq. 1"
CHOICE = {"indices"}


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


together = (cases(most_codes=8) | crowds(offsets=(0.0, 10.0))).filter(lambda case: len(case.x) > 1)


@law("tokens.split", level="must", source="a layer acts on each token", needs=CHOICE, case=together, data=st.data())
def test_splitting_the_batch_changes_no_token(implementation, case, data):
    """A token's code and output do not depend on which other tokens are in the batch."""
    cut = data.draw(st.integers(1, len(case.x) - 1), label="first part's size")
    layer = implementation.build(case.reference)
    whole = layer(case.x)
    parts = [layer(case.x[:cut]), layer(case.x[cut:])]
    assert_tokens_unchanged(implementation, case, whole, parts, slice(None))


@law("tokens.permuted", level="must", source="a layer acts on each token", needs=CHOICE, case=together, data=st.data())
def test_permuting_the_tokens_permutes_the_outputs(implementation, case, data):
    """A token's code and output do not depend on where in the batch it stands."""
    order = np.array(data.draw(st.permutations(range(len(case.x))), label="order of the tokens"))
    layer = implementation.build(case.reference)
    assert_tokens_unchanged(implementation, case, layer(case.x), [layer(case.x[order])], np.argsort(order))


def assert_tokens_unchanged(implementation, case, whole, parts, back):
    """Compare one answer with another that was given in parts and in another order; `back` undoes the order."""
    u = implementation.precision.unit_roundoff
    sure = decided(implementation, case)
    indices = np.concatenate([part.indices for part in parts])[back]
    output = np.concatenate([part.output for part in parts])[back]
    q = case.codes[whole.indices]
    assert_within("selected code", case.codes[indices][sure], q[sure], 0.0)
    bound = 2 * bounds.output(case.x, q, case.reference.estimator, u)
    assert_within("output", output[sure], whole.output[sure], bound[sure])


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
