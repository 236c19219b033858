"""The bounds of moving averages and projections: the roundings that their docstrings count, at simple inputs."""

import numpy as np
from by_hand import U, same

from vq_reference.codebook import Layer
from vq_reference.testing.laws.bounds import bounds_state
from vq_reference.testing.laws.bounds.bounds import gamma


def test_a_count_takes_three_roundings_to_place_and_six_a_step():
    same(bounds_state.ema_counts(np.array([2.0, 0.0]), 2, U), gamma(3 + 2 * 6, U) * np.array([2, 0]))


def test_a_sum_takes_one_more_and_one_for_each_token():
    same(bounds_state.ema_sums(np.array([[2.0, 0.0]]), 5, 2, U), gamma(3 + 2 * 6 + 1 + 5, U) * np.array([[2, 0]]))


def test_a_code_takes_three_counts_two_sums_of_them_nine_operations_and_its_sum():
    roundings = 3 * 15 + 2 * 2 + 9 + 21
    found = bounds_state.ema_codes(np.array([[2.0, 0.0], [3.0, 1.0]]), np.array([0.5, 4.0]), 5, 2, U)
    same(found, gamma(roundings, U) * np.array([[4, 0], [0.75, 0.25]]))


def test_a_projection_takes_its_width_and_a_bias():
    x, weight = np.array([[1.0, -2.0, 0.5]]), np.array([[1.0, 1.0, 2.0], [-1.0, 0.0, 0.0]])
    same(bounds_state.affine(Layer(weight, np.array([-3.0, 0.0])), x, U), gamma(4, U) * np.array([[7, 1]]))
    same(bounds_state.affine(Layer(weight), x, U), gamma(4, U) * np.array([[4, 1]]))
    same(bounds_state.affine(None, x, U), np.zeros((1, 3)))


def test_a_direction_is_divided_once_more():
    same(bounds_state.unit(3, U), gamma(3.5, U) + U)
