"""The rotation trick: J = λR, with R the proper rotation in the plane of x and q that turns x̂ onto q̂.

Measured on whole Jacobians. A reflection in place of R, or λR in place of λR', keeps every norm and every value.
"""

import numpy as np

from vq_reference import rotation
from vq_reference.testing.interface.subjects import EXTREME, OPPOSITE, REGULAR
from vq_reference.testing.laws.assertions import assert_within
from vq_reference.testing.laws.bounds import bounds
from vq_reference.testing.laws.expected.jacobian import jacobian
from vq_reference.testing.laws.expected.output_and_code import output_and_code
from vq_reference.testing.laws.law import law
from vq_reference.testing.laws.strategies.simvq_cases import cases

FIFTY = "Fifty et al., arXiv 2410.06424, §4.2"
ROTATION = {"estimator:rotation", "indices"}
regular = cases("rotation", REGULAR)
opposite = cases("rotation", OPPOSITE)


def turning(implementation, case):
    """Return M = J/λ, (N, D, D), and the selected codes q, (N, D)."""
    jac, q = jacobian(implementation, case)
    return jac / rotation.ratio(case.x, q)[:, :, None], q


def assert_orthogonal(m, row):
    assert_within("J'J/λ²", np.swapaxes(m, 1, 2) @ m, np.eye(m.shape[1]), bounds.orthogonality(row))


def assert_aligned(m, x, q, row):
    reached = np.einsum("nij,nj->ni", m, x) * rotation.ratio(x, q)
    assert_within("J x", reached, q, row * np.linalg.norm(q, axis=1, keepdims=True))


@law("rotation.isometry", level="must", source=FIFTY, needs=ROTATION, case=regular)
def test_the_rotation_keeps_angles_and_scales_every_length_by_the_ratio(implementation, case):
    """The Jacobian of the rotation trick keeps angles and scales every length by λ = ‖q‖/‖x‖: J'J = λ²I."""
    m, q = turning(implementation, case)
    assert_orthogonal(m, bounds.rotation(case.x, q, implementation.precision.unit_roundoff)[:, None, None])


@law("rotation.aligned", level="must", source=FIFTY, needs=ROTATION, case=regular)
def test_the_rotation_turns_the_input_onto_its_code(implementation, case):
    """The Jacobian of the rotation trick maps the input onto its code: Jx = q."""
    m, q = turning(implementation, case)
    assert_aligned(m, case.x, q, bounds.rotation(case.x, q, implementation.precision.unit_roundoff)[:, None])


@law("rotation.proper", level="must", source=FIFTY, needs=ROTATION, case=regular)
def test_the_rotation_is_proper_and_no_reflection(implementation, case):
    """The Jacobian of the rotation trick keeps orientation: det(J/λ) = +1, where a reflection has −1."""
    m, q = turning(implementation, case)
    row = bounds.rotation(case.x, q, implementation.precision.unit_roundoff)
    assert_within("det(J/λ)", np.linalg.det(m), 1.0, bounds.determinant(row, case.x.shape[1]))


@law("rotation.plane", level="must", source=FIFTY, needs=ROTATION, case=cases("rotation", REGULAR, dims=(3, 6)))
def test_the_rotation_leaves_everything_off_its_plane_alone(implementation, case):
    """A vector orthogonal to both the input and its code is only scaled: Jv = λv."""
    m, q = turning(implementation, case)
    row = bounds.rotation(case.x, q, implementation.precision.unit_roundoff)
    for n, pair in enumerate(np.stack([case.x, q], axis=1)):
        off_plane = np.linalg.svd(pair / np.linalg.norm(pair, axis=1, keepdims=True))[2][2:]
        assert_within("Jv/λ", off_plane @ m[n].T, off_plane, row[n])


@law("rotation.transposed", level="must", source=FIFTY, needs=ROTATION, case=regular)
def test_the_backward_of_the_rotation_applies_its_transpose(implementation, case):
    """The rotation trick hands back g ↦ λR'g: the transpose of what turns the input onto its code, in every entry."""
    jac, q = jacobian(implementation, case)
    expected = rotation.ratio(case.x, q)[:, :, None] * rotation.matrix(case.x, q)
    scale = rotation.ratio(case.x, q) * bounds.rotation(case.x, q, implementation.precision.unit_roundoff)[:, None]
    assert_within("J", jac, expected, scale[:, :, None])


@law("rotation.opposite", level="should", source=FIFTY, needs=ROTATION, case=opposite)
def test_the_rotation_is_orthogonal_however_opposite_the_directions(implementation, case):
    """The rotation trick stays a rotation when a code points away from its input: J'J = λ²I and Jx = q to rounding."""
    m, q = turning(implementation, case)
    row = bounds.stable_rotation(case.x.shape[1], implementation.precision.unit_roundoff)
    assert_orthogonal(m, row)
    assert_aligned(m, case.x, q, row)


@law(
    "rotation.finite",
    level="should",
    source="every gradient is a number",
    needs=ROTATION,
    case=cases("rotation", EXTREME),
)
def test_the_gradient_of_the_rotation_is_finite_for_every_finite_input(implementation, case):
    """The rotation trick hands back a finite gradient for zero, tiny and huge inputs and codes."""
    jac, _ = jacobian(implementation, case)
    assert_within("finite entries of J", np.isfinite(jac), 1.0, 0.0)


@law(
    "rotation.output",
    level="must",
    source=FIFTY,
    needs={"estimator:rotation", "indices"},
    case=cases("rotation", REGULAR),
)
def test_the_rotation_does_not_change_the_output(implementation, case):
    """With the rotation trick the output is still the selected code, up to the rounding of λRx."""
    output, q = output_and_code(implementation, case)
    row = bounds.rotation(case.x, q, implementation.precision.unit_roundoff)[:, None]
    assert_within("output", output, q, row * np.linalg.norm(q, axis=1, keepdims=True))
