"""The oracle's orthogonality against its formula and derivative in 50 digits, and at its extremes."""

import mpmath
import numpy as np
import pytest

from vq_reference import orthogonality
from vq_reference.testing.laws.assertions import assert_within
from vq_reference.testing.laws.bounds import bounds_auxiliary

U = 2.0**-53
CODES = np.random.default_rng(0).standard_normal((4, 3))


def formula(codes):
    """Return ‖Ê Ê' − I‖²/K² of a matrix of mpf: the diagonal, which the oracle leaves out, is 0 to 50 digits."""
    size = codes.rows
    rows = [codes[i, :] / mpmath.norm(codes[i, :]) for i in range(size)]
    pairs = [(i, j) for i in range(size) for j in range(size)]
    return mpmath.fsum((mpmath.fdot(rows[i], rows[j]) - (i == j)) ** 2 for i, j in pairs) / size**2


def test_value_and_gradient_are_those_of_the_formula():
    value_bound, bound = bounds_auxiliary.orthogonality(CODES, U)
    with mpmath.workdps(50):
        exact = mpmath.matrix(CODES.tolist())
        assert_within("ℓ", orthogonality.orthogonality(CODES), float(formula(exact)), value_bound)
        for place in np.ndindex(CODES.shape):
            axis = mpmath.zeros(*CODES.shape)
            axis[place] = 1
            expected = float(mpmath.diff(lambda t, axis=axis: formula(exact + t * axis), 0))
            assert_within("∂ℓ/∂e", orthogonality.vjp(CODES)[place], expected, bound[place])
            assert_within("∂(−2ℓ)/∂e", orthogonality.vjp(CODES, g=-2.0)[place], -2 * expected, 2 * bound[place])


def test_right_angles_are_zero_whatever_the_lengths():
    assert orthogonality.orthogonality(np.diag([1.0, 1e-300, 1e300])) == 0.0


@pytest.mark.parametrize("size", [1, 2, 5])
def test_codes_of_one_line_have_the_largest_value_and_no_gradient(size):
    codes = np.array([[3.0, 4.0]]) * np.resize([1.0, -2.0], size)[:, None]
    value, bound = bounds_auxiliary.orthogonality(codes, U)
    assert_within("ℓ", orthogonality.orthogonality(codes), 1 - 1 / size, value)
    assert_within("∂ℓ/∂e", orthogonality.vjp(codes), 0.0, bound)


def test_a_code_of_length_zero_is_at_right_angles_to_all():
    codes = np.array([[0.0, 0.0], [1.0, 0.0], [2.0, 0.0]])
    assert orthogonality.orthogonality(codes) == 2 / 9
    np.testing.assert_array_equal(orthogonality.vjp(codes)[0], [0.0, 0.0])


def test_an_empty_codebook_is_refused():
    with pytest.raises(ValueError, match=r"codebook has shape \(0, 3\): expected at least one code"):
        orthogonality.orthogonality(CODES[:0])
