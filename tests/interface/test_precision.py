"""Rounding into a dtype, against torch's, entry by entry."""

import numpy as np
import pytest
import torch

from vq_reference.testing.interface.precision import PRECISIONS

NAMES = ["float16", "bfloat16", "float32", "float64"]


def hard_values(precision):
    """Return numbers around everything that rounding can do: ties, both ends of the range, subnormals, zeros."""
    u = precision.unit_roundoff
    generator = np.random.default_rng(0)
    around_one = 1 + u * np.arange(-9, 10) / 2
    exponents = np.arange(np.log2(precision.smallest_normal) - 12, np.log2(precision.largest), 3.0)
    spread = np.outer(2.0**exponents, 1 + generator.random(20)).ravel()
    ends = np.array([precision.largest, precision.largest * (1 - u), precision.smallest_normal, 0.0])
    return np.concatenate([sign * values for sign in (1, -1) for values in (around_one, spread, ends)])


@pytest.mark.parametrize("name", NAMES)
def test_rounding_is_torchs(name):
    values = hard_values(PRECISIONS[name])
    values = values if name == "float64" else values.astype(np.float32).astype(np.float64)
    expected = torch.tensor(values, dtype=torch.float64).to(getattr(torch, name)).double().numpy()
    rounded = PRECISIONS[name].round(values)
    np.testing.assert_array_equal(rounded.view(np.uint64), expected.view(np.uint64))


@pytest.mark.parametrize("name", NAMES)
def test_rounding_twice_is_rounding_once(name):
    once = PRECISIONS[name].round(hard_values(PRECISIONS[name]))
    np.testing.assert_array_equal(PRECISIONS[name].round(once), once)


@pytest.mark.parametrize("name", NAMES)
def test_the_constants_are_torchs(name):
    precision, limits = PRECISIONS[name], torch.finfo(getattr(torch, name))
    assert precision.name == name
    assert precision.unit_roundoff == limits.eps / 2
    assert precision.largest == limits.max
    assert precision.smallest_normal == limits.tiny


@pytest.mark.parametrize("name", NAMES)
def test_in_the_normal_range_a_relative_error_is_at_most_the_unit_roundoff_and_reaches_it(name):
    precision = PRECISIONS[name]
    values = hard_values(precision)
    values = values[(np.abs(values) >= precision.smallest_normal) & (np.abs(values) <= precision.largest)]
    error = np.abs(precision.round(values) - values) / np.abs(values)
    assert error.max() <= precision.unit_roundoff
    if name != "float64":  # which rounds no float64
        assert error.max() * (1 + 2 * precision.unit_roundoff) >= precision.unit_roundoff / (
            1 + precision.unit_roundoff
        )


@pytest.mark.parametrize("name", ["float16", "bfloat16", "float32"])
def test_beyond_the_range_is_infinity(name):
    np.testing.assert_array_equal(PRECISIONS[name].round(np.array([1e300, -1e300])), [np.inf, -np.inf])


def test_just_above_the_middle_of_two_numbers_is_rounded_up():
    middle = 1 + PRECISIONS["bfloat16"].unit_roundoff
    assert PRECISIONS["bfloat16"].round(np.array([middle + 2.0**-40]))[0] > middle
