"""The oracle's choice against exact arithmetic: distances, the nearest code, ties, and the way back of a gradient."""

import re
from fractions import Fraction

import mpmath
import numpy as np
import pytest

from vq_reference import nearest
from vq_reference.testing.laws.assertions import assert_within
from vq_reference.testing.laws.bounds import bounds

U = np.finfo(np.float64).eps / 2


def exact_squares(x, codes):
    """Return ‖x_n − E_k‖² as Fractions, a list of N lists of K."""
    rows = [[[Fraction(float(entry)) for entry in row] for row in table] for table in (x, codes)]
    return [[sum((a - b) ** 2 for a, b in zip(token, code, strict=True)) for code in rows[1]] for token in rows[0]]


def exact_nearest(x, codes):
    """Return the lowest index of the least distance, for each token."""
    return [min(range(len(row)), key=row.__getitem__) for row in exact_squares(x, codes)]


@pytest.mark.parametrize("offset", [0.0, 1e6, 1e12])
@pytest.mark.parametrize("scale", [2.0**-350, 1.0, 2.0**350])
def test_distances_keep_their_digits_whatever_offset_both_share(offset, scale):
    generator = np.random.default_rng(3)
    x, codes = ((generator.standard_normal((n, 5)) + offset) * scale for n in (7, 4))
    with mpmath.workdps(50):
        for token, row in zip(nearest.distances(x, codes), exact_squares(x, codes), strict=True):
            expected = [mpmath.sqrt(mpmath.mpf(s.numerator) / s.denominator) for s in row]
            relative = [float(mpmath.mpf(float(a)) / e - 1) for a, e in zip(token, expected, strict=True)]
            # a difference, twice in its square, the square and a sum of D, all halved by the root, and the root
            assert_within("‖x − c‖", np.array(relative), 0.0, bounds.gamma((x.shape[1] + 3) / 2 + 1, U))


@pytest.mark.parametrize("seed", range(5))
def test_the_lowest_of_the_nearest_codes_is_chosen_on_a_grid_full_of_ties(seed):
    generator = np.random.default_rng(seed)
    x, codes = (generator.integers(-2, 3, (n, 3)) / 2.0 for n in (40, 12))
    codes[-3:] = codes[:3]
    rows = exact_squares(x, codes)
    assert sum(row.count(min(row)) > 1 for row in rows) > len(x) // 4
    np.testing.assert_array_equal(nearest.nearest(x, codes), exact_nearest(x, codes))


@pytest.mark.parametrize("exponent", [-1074, -1030, -600, -401, -399, 0, 399, 401, 600, 1020])
def test_the_order_is_right_where_the_squares_leave_the_range(exponent):
    generator = np.random.default_rng(0)
    x, codes = (np.ldexp(generator.integers(-8, 9, (n, 3)).astype(float), exponent) for n in (20, 6))
    np.testing.assert_array_equal(nearest.nearest(x, codes), exact_nearest(x, codes))


@pytest.mark.parametrize("longest", [1e100, 1.0, 1e300, 2.0**1020])
def test_the_order_is_right_for_short_codes_beside_a_long_one(longest):
    for short in (1e-200, np.finfo(np.float64).smallest_subnormal):
        x, codes = np.array([[short], [3 * short]]), np.array([[longest], [2 * short], [short], [5 * short]])
        np.testing.assert_array_equal(nearest.nearest(x, codes), exact_nearest(x, codes))


def test_no_tokens_have_no_indices():
    indices = nearest.nearest(np.empty((0, 2)), np.ones((3, 2)))
    assert indices.shape == (0,)
    assert indices.dtype == np.int64


def test_a_code_gets_the_sum_of_the_gradients_of_its_tokens():
    indices, g = np.array([2, 0, 2, 2]), np.arange(8.0).reshape(4, 2)
    np.testing.assert_array_equal(nearest.gather_vjp(indices, g, 4), [[2, 3], [0, 0], [0 + 4 + 6, 1 + 5 + 7], [0, 0]])
    np.testing.assert_array_equal(nearest.gather_vjp(indices[:0], g[:0], 2), np.zeros((2, 2)))


@pytest.mark.parametrize("function", [nearest.nearest, nearest.distances])
@pytest.mark.parametrize(
    ("x", "codes", "error", "message"),
    [
        (np.ones((2, 3)), np.ones((4, 2)), ValueError, "x has shape (2, 3): expected (N, 2)"),
        (np.ones((2, 3)), np.empty((0, 3)), ValueError, "codes has shape (0, 3): expected at least one code"),
        (np.ones((2, 3)), np.ones(3), ValueError, "codes has shape (3,): expected (N, D) with D of at least 1"),
        (np.ones((2, 3)), np.ones((4, 3), int), TypeError, "codes has dtype int64: expected a real floating dtype"),
        (np.full((2, 3), np.nan), np.ones((4, 3)), ValueError, "x[0, 0] is nan: expected finite entries"),
        (np.ones((2, 3)), np.full((4, 3), np.inf), ValueError, "codes[0, 0] is inf: expected finite entries"),
    ],
)
def test_an_argument_without_a_nearest_code_is_named(function, x, codes, error, message):
    with pytest.raises(error, match=re.escape(message)):
        function(x, codes)
