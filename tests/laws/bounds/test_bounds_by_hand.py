"""Each bound is the number that its docstring's derivation gives at inputs so simple that it can be counted by hand.

`test_bounds` says that no bound is too small for what float32 does; here a rounding too many shows as well.
"""

import re

import numpy as np
import pytest
from by_hand import U, same

from vq_reference.codebook import Layer
from vq_reference.testing.laws.bounds import bounds
from vq_reference.testing.laws.bounds.bounds import gamma

# at right angles, along one line and opposite; of lengths 2 and 3, 5 and 5, 1 and 2
X, Q = np.array([[2.0, 0.0], [3.0, 4.0], [1.0, 0.0]]), np.array([[0.0, 3.0], [3.0, 4.0], [-2.0, 0.0]])
# 4γ_2 for two products, each doubled; directions (γ_3) 2·2 in them, and 2/s + 1 for w, doubled twice; 26 roundings
TURNED = 4 * gamma(2, U) + (8 + 8 / np.array([np.sqrt(2), 2])) * gamma(3, U) + 26 * U


def test_gamma_is_its_formula_as_long_as_it_says_anything():
    assert gamma(3, 2.0**-4) == 3 / 13
    with pytest.raises(ValueError, match=re.escape("4 operations at unit roundoff 0.25 have no error bound: use a")):
        gamma(4, 0.25)


def test_straight_through_rounds_its_first_step_and_its_second():
    expected = U * (1 + U) * np.array([[8.0, 2.0]]) + U * np.array([[5.0, 1.0]])
    same(bounds.straight_through_output(np.array([[3.0, 1.0]]), np.array([[-5.0, -1.0]]), U), expected)
    for estimator in ("straight_through", "none"):
        same(bounds.output(np.array([[3.0, 1.0]]), np.array([[-5.0, -1.0]]), estimator, U), expected)


def test_a_direction_is_half_a_sum_of_squares_a_root_and_a_division():
    same(bounds.direction(3, U), gamma(3.5, U))


def test_the_bisector_is_two_for_equal_directions_and_nothing_for_opposite_ones():
    same(bounds.bisector_length(X, Q), np.array([np.sqrt(2), 2.0, 0.0]))


def test_the_rotation_counts_two_products_two_directions_and_the_bisector():
    same(bounds.rotation(X, Q, U), np.array([*TURNED / (1 - TURNED), np.inf]))
    # at 1/64 the sum of all is 1.1: products of errors are no longer covered
    assert np.isinf(bounds.rotation(X, Q, 2.0**-6)[1])


def test_a_rotated_output_and_gradient_are_off_by_as_much_of_their_lengths():
    turned = TURNED / (1 - TURNED)
    same(bounds.output(X[:2], Q[:2], "rotation", U), turned[:, None] * np.array([[3, 3], [5, 5]]))
    g = np.array([[3.0, 4.0], [0.0, -7.0]])
    expected = turned[:, None] * np.array([[1.5 * 5, 1.5 * 5], [7, 7]])
    same(bounds.estimator_gradient(X[:2], Q[:2], g, "rotation", U), expected)


def test_straight_through_rounds_its_gradient_once_and_without_estimator_there_is_none():
    g = np.array([[3.0, -4.0]])
    same(bounds.estimator_gradient(X[:1], Q[:1], g, "straight_through", U), np.array([[3 * U, 4 * U]]))
    same(bounds.estimator_gradient(X[:1], Q[:1], g, "none", U), np.zeros((1, 2)))


def test_below_the_normal_range_every_term_may_lose_a_spacing():
    # two sums of two products and eight operations, doubled; times λ = 3/2, but not times 2/5
    same(bounds.estimator_underflow(X[:2], np.array([[0.0, 3.0], [2.0, 0.0]]), 0.25), np.array([[6 * 1.5], [6.0]]))


def test_the_stable_rotation_counts_two_reflections_their_arrival_and_the_ratio():
    reflection = 2 * (2 * gamma(3, U) + gamma(2, U) + 2 * U) + 3 * U
    arrival = 4 * np.sqrt(2) * gamma(3, U) + 2 * (gamma(3, U) + gamma(2, U))
    total = 2 * reflection + arrival + 6 * U
    same(bounds.stable_rotation(2, U), total / (1 - total))


def test_rows_that_are_off_are_off_twice_in_their_products_and_as_often_as_there_are_in_the_determinant():
    same(bounds.orthogonality(np.array([0.25, 0.5])), np.array([0.5 + 0.0625, 1.25]))
    same(bounds.determinant(np.array([0.125, 0.5]), 4), np.array([1.25**4 - 1, 15.0]))


def test_a_choice_counts_both_codes():
    x, chosen = np.array([[1.0, -2.0], [0.0, 1.0]]), np.array([[3.0, 1.0], [0.0, 1.0]])
    best = np.array([[0.0, 2.0], [2.0, 0.0]])

    def expanded(terms, length, square):
        return (1 + gamma(2, U)) * (terms * gamma(4, U) + length * gamma(2, U)) + square * gamma(2, U)

    # ‖x‖² + 2|x|'|c| + ‖c‖², ‖c‖² and ‖x − c‖²
    first = expanded(5 + 2 * 5 + 10, 10, 13) + expanded(5 + 2 * 4 + 4, 4, 17)
    second = expanded(1 + 2 + 1, 1, 0) + expanded(1 + 0 + 4, 4, 5)
    same(bounds.excess_by_expansion(x, chosen, best, U), np.array([first, second]))
    same(bounds.excess_by_difference(x, chosen, best, U), gamma(7, U) * np.array([13 + 17, 0 + 5]))


def test_the_loss_counts_its_sum_and_eight_more_and_its_gradient_eight():
    same(bounds.mean_square(5, U), gamma(13, U))
    same(bounds.loss_gradient(np.array([[-3.0, 2.0]]), U), gamma(8, U) * np.array([[3, 2]]))


def test_the_gradient_at_a_code_counts_every_token():
    at_q = np.array([[1.0, -2.0], [3.0, 4.0], [-5.0, 6.0]])
    expected = gamma(8 + 3, U) * np.array([[6, 8], [0, 0], [3, 4]])
    same(bounds.codebook_gradient(at_q, np.array([0, 2, 0]), 3, U), expected)


FROZEN = np.array([[1.0], [-2.0]])
INTO, OUT = np.array([[1.0], [-1.0], [0.0]]), np.array([[1.0, -2.0, 3.0], [0.0, 1.0, -1.0]])


def test_the_gradient_at_a_transform_counts_tokens_codes_and_the_layers_behind():
    # what enters the second layer is (1, 0, 0) and (0, 2, 0)
    transform = (Layer(INTO, np.zeros(3)), Layer(OUT, np.zeros(2)))
    found = bounds.transform_gradient(FROZEN, transform, np.array([[1.0, 2.0], [3.0, 4.0]]), 5, U)
    last, first = gamma(8 + 5 + 2, U), gamma(8 + 5 + 2 + 2, U)
    same(found["1.weight"], last * np.array([[1, 6, 0], [2, 8, 0]]))
    same(found["1.bias"], last * np.array([4, 6]))
    # (1, 4, 5) and (3, 10, 13) reach it, of which ReLUs let (1, 0, 0) and (0, 10, 0) through
    same(found["0.weight"], first * np.array([[1], [20], [0]]))
    same(found["0.bias"], first * np.array([1, 10, 0]))
    bare = bounds.transform_gradient(FROZEN, (Layer(INTO), Layer(OUT)), np.ones((2, 2)), 5, U)
    assert set(bare) == {"0.weight", "1.weight"}


def test_a_decoded_code_counts_the_widths_of_all_layers():
    transform = (Layer(INTO, np.array([-1.0, 0.0, 0.0])), Layer(OUT))
    # absolute values of all terms behind the first layer: (2, 1, 0) and (3, 2, 0)
    same(bounds.decoded(FROZEN, transform, U), gamma(1 + 2 + 3 + 2, U) * np.array([[4, 1], [7, 2]]))
