"""What the oracle accepts, and what it says of everything else."""

import re

import numpy as np
import pytest

from vq_reference import arguments


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_every_real_floating_dtype_is_widened_exactly(dtype):
    values = np.array([[1 / 3, -0.0], [np.finfo(dtype).tiny, np.finfo(dtype).max]], dtype)
    widened = arguments.vectors("x", values)
    assert widened.dtype == np.float64
    np.testing.assert_array_equal(widened.astype(dtype).view(np.uint8), values.view(np.uint8))


def test_the_caller_keeps_its_own_array():
    values = np.ones((2, 3))
    arguments.vectors("x", values)[0, 0] = 7
    assert values[0, 0] == 1


def test_no_rows_are_good_vectors_and_no_codes_are_a_bad_codebook():
    assert arguments.vectors("x", np.empty((0, 3))).shape == (0, 3)
    with pytest.raises(ValueError, match=re.escape("codes has shape (0, 3): expected at least one code")):
        arguments.codes("codes", np.empty((0, 3)))


@pytest.mark.parametrize(
    "value",
    [np.ones((2, 3), np.int64), np.ones((2, 3), bool), np.ones((2, 3), complex), np.full((2, 3), None), [["a", "b"]]],
    ids=["int64", "bool", "complex128", "object", "text"],
)
def test_a_dtype_that_is_not_real_floating_is_refused_by_name(value):
    dtype = re.escape(str(np.asarray(value).dtype))
    with pytest.raises(TypeError, match=f"^x has dtype {dtype}: expected a real floating dtype, such as float64$"):
        arguments.vectors("x", value)


@pytest.mark.parametrize(
    ("shape", "width", "expected"),
    [
        ((), None, "(N, D) with D of at least 1"),
        ((3,), None, "(N, D) with D of at least 1"),
        ((2, 3, 4), None, "(N, D) with D of at least 1"),
        ((2, 0), None, "(N, D) with D of at least 1"),
        ((2, 3), 4, "(N, 4)"),
        ((4,), 4, "(N, 4)"),
    ],
)
def test_a_wrong_shape_is_refused_with_the_one_that_was_expected(shape, width, expected):
    with pytest.raises(ValueError, match=re.escape(f"x has shape {shape}: expected {expected}") + "$"):
        arguments.vectors("x", np.ones(shape), width)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_the_first_entry_that_is_not_finite_is_named(bad):
    values = np.ones((3, 2))
    for last in [(1, 1), (2, 0)]:
        values[last] = bad
        with pytest.raises(ValueError, match=re.escape(f"x[1, 1] is {bad}: expected finite entries") + "$"):
            arguments.vectors("x", values)


@pytest.mark.parametrize("bad", [-0.25, np.nan, np.inf, -np.inf])
def test_a_weight_that_is_negative_or_not_finite_is_refused_by_name_and_value(bad):
    with pytest.raises(ValueError, match=re.escape(f"beta is {bad}: expected a finite number of at least 0") + "$"):
        arguments.weight("beta", bad)


@pytest.mark.parametrize("good", [0, 1, 0.25, np.float32(0.5), np.finfo(np.float64).max])
def test_a_weight_of_zero_or_more_is_returned_as_a_float(good):
    assert arguments.weight("beta", good) == float(good)
