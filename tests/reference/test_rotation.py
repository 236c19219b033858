"""The oracle's rotation against the formula of the paper in 50 digits, and its answers where the formula has none."""

import itertools
import re

import mpmath
import numpy as np
import pytest

from vq_reference import rotation
from vq_reference.testing.laws.assertions import assert_within
from vq_reference.testing.laws.bounds import bounds

U = np.finfo(np.float64).eps / 2
ANGLES = [
    0.0,
    *(10.0**-k for k in (12, 8, 3)),
    0.5,
    1.0,
    np.pi / 2,
    2.0,
    3.0,
    *(np.pi - 10.0**-k for k in (3, 6, 9, 12)),
]
# lengths of x and q: ordinary; both near either end of the range; subnormal; as unlike as λ < LARGEST_RATIO allows
LENGTHS = [(1.0, 1.0), (3.0, 0.2), (1e-300, 1e-300), (1e300, 1e307), (1e-310, 2e-312), (1e-150, 7.0), (5.0, 1e-150)]


@pytest.fixture(autouse=True)
def _fifty_digits():
    with mpmath.workdps(50):
        yield


def pair(angle, lengths, dim, seed=0):
    """Return x and q, each (1, D), of these lengths, at this angle up to rounding, in a plane of no coordinate axis."""
    generator = np.random.default_rng([seed, dim])
    plane, _ = np.linalg.qr(generator.standard_normal((dim, 2)))
    x, q = plane[:, 0], plane[:, 0] * np.cos(angle) + plane[:, 1] * np.sin(angle)
    return x[None] * lengths[0], q[None] * lengths[1]


def exact(v):
    return mpmath.matrix([mpmath.mpf(float(entry)) for entry in v])


def formula(x, q):
    """Return R = I − 2ww' + 2q̂x̂' and λ of two vectors, (D,), in 50 digits. Source: arXiv 2410.06424, §4.2."""
    x, q = exact(x), exact(q)
    x_hat, q_hat = x / mpmath.norm(x), q / mpmath.norm(q)
    w = (x_hat + q_hat) / mpmath.norm(x_hat + q_hat)
    return mpmath.eye(len(x)) - 2 * w * w.T + 2 * q_hat * x_hat.T, mpmath.norm(q) / mpmath.norm(x)


def norm_of_difference(actual, expected):
    return float(mpmath.norm(exact(actual) - expected))


def unit(v):
    """Return v times a power of two that brings its largest entry near 1: bounds ask for directions only."""
    return np.ldexp(v, -np.frexp(np.max(np.abs(v)))[1])


@pytest.mark.parametrize("lengths", LENGTHS, ids=str)
@pytest.mark.parametrize("angle", ANGLES, ids=str)
def test_the_rotation_is_the_papers_formula_at_every_angle_and_length(angle, lengths):
    for dim, seed in itertools.product((2, 3, 6), range(3)):
        x, q = pair(angle, lengths, dim, seed)
        expected, _ = formula(x[0], q[0])
        bound = float(bounds.rotation(unit(x), unit(q), U)[0])
        for i, row in enumerate(rotation.matrix(x, q)[0]):
            assert_within(f"row {i} of R, D = {dim}", norm_of_difference(row, expected[i, :].T), 0.0, bound)


@pytest.mark.parametrize("lengths", LENGTHS, ids=str)
@pytest.mark.parametrize("angle", ANGLES, ids=str)
def test_the_vjp_is_the_ratio_times_the_transpose_of_the_papers_formula(angle, lengths):
    for dim, seed in itertools.product((2, 3, 6), range(3)):
        x, q = pair(angle, lengths, dim, seed)
        g = np.random.default_rng(seed).standard_normal((1, dim))
        turning, ratio = formula(x[0], q[0])
        expected = ratio * (turning.T * exact(g[0]))
        bound = float(bounds.rotation(unit(x), unit(q), U)[0] * ratio * mpmath.norm(exact(g[0])))
        # where λ is so small that λR'g is subnormal, each entry is off by half of the smallest number besides
        subnormal = np.sqrt(dim) * np.finfo(np.float64).smallest_subnormal
        assert_within(
            f"λR'g, D = {dim}", norm_of_difference(rotation.vjp(x, q, g)[0], expected), 0.0, bound + subnormal
        )


@pytest.mark.parametrize("lengths", LENGTHS, ids=str)
def test_the_ratio_is_the_quotient_of_the_lengths(lengths):
    for dim in (1, 2, 6):
        x, q = (v[:, :dim] for v in pair(1.0, lengths, max(dim, 2)))
        expected = mpmath.norm(exact(q[0])) / mpmath.norm(exact(x[0]))
        relative = float(mpmath.mpf(float(rotation.ratio(x, q)[0, 0])) / expected - 1)
        # a sum of D squares and a root for either length, and their quotient: (D + 4)u, as in `bounds.rotation`
        assert_within("λ", relative, 0.0, bounds.gamma(dim + 4, U))


@pytest.mark.parametrize("angle", [*ANGLES, np.pi], ids=str)
def test_the_rotation_stays_a_rotation_near_opposite_directions(angle):
    for dim, seed in itertools.product((2, 3, 6), range(3)):
        x, q = pair(angle, (1.0, 3.0), dim, seed)
        q = -2 * x if angle == np.pi else q
        turning, row = rotation.matrix(x, q)[0], bounds.stable_rotation(dim, U)
        assert_within("R'R", turning.T @ turning, np.eye(dim), bounds.orthogonality(np.array(row)))
        assert_within("det R", np.linalg.det(turning), 1.0, bounds.determinant(np.array(row), dim))
        reached = rotation.ratio(x, q) * rotation.rotate(x, q, x)
        assert_within("λRx", np.linalg.norm(reached - q), 0.0, row * np.linalg.norm(q))


def test_turning_back_undoes_turning():
    for dim in (2, 5):
        x, q = pair(2.5, (2.0, 0.5), dim)
        v = np.random.default_rng(0).standard_normal((1, dim))
        back = rotation.rotate_back(x, q, rotation.rotate(x, q, v))
        assert_within("R'Rv", np.linalg.norm(back - v), 0.0, 2 * bounds.stable_rotation(dim, U) * np.linalg.norm(v))


def test_tokens_are_rotated_independently():
    pairs = [pair(angle, lengths, 4) for angle, lengths in zip(ANGLES, itertools.cycle(LENGTHS), strict=False)]
    x, q = (np.concatenate(parts) for parts in zip(*pairs, strict=True))
    g = np.random.default_rng(1).standard_normal(x.shape)
    together = rotation.vjp(x, q, g)
    alone = [rotation.vjp(x[n : n + 1], q[n : n + 1], g[n : n + 1])[0] for n in range(len(x))]
    # NumPy sums the rows of a batch in one order and a single row in another: a few roundings of the same formula
    scale = np.abs(rotation.ratio(x, q)) * np.linalg.norm(g, axis=1, keepdims=True)
    row = 2 * bounds.rotation(*(v / np.max(np.abs(v), axis=1, keepdims=True) for v in (x, q)), U)[:, None]
    assert_within("λR'g", together, np.array(alone), row * scale)


def test_an_input_of_zero_is_not_turned_and_its_ratio_is_one():
    x, q, g = np.zeros((1, 3)), np.array([[1.0, -2.0, 0.5]]), np.array([[3.0, 0.25, -7.0]])
    np.testing.assert_array_equal(rotation.matrix(x, q)[0], np.eye(3))
    np.testing.assert_array_equal(rotation.vjp(x, q, g), g)


def test_a_code_of_zero_turns_nothing_and_its_ratio_is_zero():
    x, q, g = np.array([[1.0, -2.0, 0.5]]), np.zeros((1, 3)), np.array([[3.0, 0.25, -7.0]])
    turning, row = rotation.matrix(x, q)[0], bounds.stable_rotation(3, U)
    assert_within("R", np.linalg.norm(turning - np.eye(3), axis=1), 0.0, row)
    np.testing.assert_array_equal(rotation.vjp(x, q, g), np.zeros((1, 3)))


@pytest.mark.parametrize(
    ("x", "axis"),
    [
        ([3.0, 0.0, 0.0], 1),
        ([1.0, 2.0, -2.0], 0),
        ([-1.0, 0.5, 0.5], 1),
        ([2.0, 1.0, 0.0], 2),
        ([1.0, 1.0], 0),
    ],
    ids=str,
)
def test_exactly_opposite_directions_turn_by_pi_in_the_plane_of_the_axis_where_the_code_is_smallest(x, axis):
    x = np.array([x])
    plane, _ = np.linalg.qr(np.stack([x[0], np.eye(x.shape[1])[axis]], axis=1))
    expected = np.eye(x.shape[1]) - 2 * plane @ plane.T
    # twice: `expected` is itself two rounded reflections
    row = 2 * bounds.stable_rotation(x.shape[1], U)
    for length in (1.0, 2.0**-500, 2.0**900):
        assert_within("R", np.linalg.norm(rotation.matrix(x, -length * x)[0] - expected, axis=1), 0.0, row)


def test_tokens_that_have_no_rotation_leave_their_neighbours_theirs():
    x = np.array([[0.0, 0.0, 0.0], [0.0, 3.0, 0.0], [3.0, 0.0, 0.0], [1.0, 2.0, -2.0], [1.0, 2.0, 3.0]])
    q = np.array([[1.0, 2.0, 2.0], [0.0, 0.0, 0.0], [-1.0, 0.0, 0.0], [-2.0, -1.0, 5.0], [3.0, 2.0, 1.0]])
    alone = [rotation.matrix(x[n : n + 1], q[n : n + 1])[0] for n in range(len(x))]
    error = np.linalg.norm(rotation.matrix(x, q) - alone, axis=2)
    assert_within("R", error, 0.0, 2 * bounds.stable_rotation(3, U))


def test_what_underflows_is_nothing_to_complain_of():
    with np.errstate(all="raise"):
        assert rotation.ratio(np.array([[1e300]]), np.array([[1e-300]])) == 0.0


def test_opposite_directions_in_one_dimension_turn_by_minus_one():
    x, q = np.array([[2.0], [3.0]]), np.array([[-6.0], [1.5]])
    assert rotation.matrix(x, q).dtype == np.float64
    np.testing.assert_array_equal(rotation.matrix(x, q)[:, 0, 0], [-1.0, 1.0])
    np.testing.assert_array_equal(rotation.vjp(x, q, np.array([[5.0], [5.0]])), [[-15.0], [2.5]])


def test_the_ratio_is_clamped_so_that_every_ordinary_gradient_stays_finite():
    x, q = pair(1.0, (1e-300, 1e300), 3)
    np.testing.assert_array_equal(rotation.ratio(x, q), rotation.LARGEST_RATIO)
    g = np.random.default_rng(2).standard_normal((100, 3))
    g = g / np.linalg.norm(g, axis=1, keepdims=True) * rotation.LARGEST_RATIO * (1 - bounds.stable_rotation(3, U))
    assert np.isfinite(rotation.vjp(np.repeat(x, 100, axis=0), np.repeat(q, 100, axis=0), g)).all()


def test_no_tokens_give_no_gradient():
    nothing = np.empty((0, 3))
    assert rotation.vjp(nothing, nothing, nothing).shape == (0, 3)
    assert rotation.matrix(nothing, nothing).shape == (0, 3, 3)


X = np.ones((2, 3))


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: rotation.ratio(X[0], X), ValueError, "x has shape (3,): expected (N, D) with D of at least 1"),
        (lambda: rotation.ratio(X, X[:, :2]), ValueError, "q has shape (2, 2): expected (2, 3)"),
        (lambda: rotation.mirrors(X, X.astype(int)), TypeError, "q has dtype int64: expected a real floating dtype"),
        (lambda: rotation.matrix(X * np.nan, X), ValueError, "x[0, 0] is nan: expected finite entries"),
        (lambda: rotation.rotate(X, X, X[:, :1]), ValueError, "v has shape (2, 1): expected (2, 3)"),
        (lambda: rotation.rotate_back(X, X, X * 1j), TypeError, "g has dtype complex128: expected a real floating"),
        (lambda: rotation.vjp(X, X, X / 0.0), ValueError, "g[0, 0] is inf: expected finite entries"),
    ],
)
def test_an_argument_that_cannot_be_rotated_is_named(call, error, message):
    with np.errstate(divide="ignore"), pytest.raises(error, match=re.escape(message)):
        call()
