"""The slope's error covers its error, and its parts say what they are named after."""

from __future__ import annotations

import numpy as np
import pytest

from vq_reference.testing.derivatives.step import Slope, resolution, settle, slope, steps

U = np.finfo(float).eps / 2


def five(f, h: float):
    return tuple(np.atleast_1d(f(np.float64(t))) for t in (-h, -h / 2, 0, h / 2, h))


# function, its slope at 0, and how many operations of relative error u it takes to compute it
SMOOTH = [
    (np.sin, 1.0, 1),
    (lambda t: np.exp(3 * t), 3.0, 2),
    (lambda t: 1 / (1 + t), -1.0, 2),
    (lambda t: np.cosh(t) + t, 1.0, 2),
]


@pytest.mark.parametrize("h", steps(U))
@pytest.mark.parametrize(("f", "true", "operations"), SMOOTH)
def test_the_error_of_a_smooth_functions_slope_covers_it(f, true, operations, h):
    noise = operations * U * np.abs(np.atleast_1d(f(h)))
    found = slope(five(f, h), h, noise)
    assert abs(found.value[0] - true) <= found.error[0]


@pytest.mark.parametrize(("f", "true", "operations"), SMOOTH)
def test_the_first_step_resolves_a_smooth_slope(f, true, operations):
    h = steps(U)[0]
    assert slope(five(f, h), h, operations * U * np.ones(1)).error[0] <= resolution(U) * abs(true)


@pytest.mark.parametrize("h", steps(U))
@pytest.mark.parametrize("left", [0.0, -1.0])
def test_the_jump_at_a_kink_is_the_difference_of_its_slopes(left, h):
    found = slope(five(lambda t: t * (1 if t > 0 else left), h), h, np.zeros(1))
    # sums of a few values of size h, over h
    assert abs(found.jump[0] - (1 - left)) <= 32 * U
    assert found.error[0] > resolution(U)


@pytest.mark.parametrize("where", np.linspace(0, 1, 21))
def test_a_kink_anywhere_within_the_step_is_covered_or_stepped_around(where):
    """Away from the point by a part of the first step: the smaller step does not reach it, or the error covers it."""
    kink = where * steps(U)[0]
    slopes = [slope(five(lambda t: max(t - kink, 0.0), h), h, U * np.ones(1)) for h in steps(U)]
    value, error = settle(slopes)
    assert abs(value[0] - 0.0) <= error[0]


def test_settling_takes_the_smallest_error_and_adds_the_distance_to_the_nearest_other():
    def one(value, error):
        zero = np.zeros(2)
        return Slope(np.array(value), np.array(error), zero, zero)

    value, error = settle([one([1.0, 5.0], [0.5, 0.1]), one([2.0, 4.0], [0.25, np.nan]), one([4.0, 8.0], [9.0, 1.0])])
    assert value.tolist() == [2.0, 5.0]
    assert error.tolist() == [0.25 + 1.0, 0.1 + 1.0]
