"""The oracle's perplexity and usage, at their extremes and against the formula in 50 digits."""

import mpmath
import numpy as np
import pytest

from vq_reference import usage
from vq_reference.testing.laws.assertions import assert_within
from vq_reference.testing.laws.bounds import bounds_auxiliary

U = 2.0**-53
INDICES = np.array([[0, 3, 3], [5, 3, -1]])


def test_perplexity_is_the_exponential_of_the_entropy():
    with mpmath.workdps(50):
        shares = [mpmath.mpf(n) / 5 for n in (1, 3, 1)]
        expected = float(mpmath.exp(-mpmath.fsum(p * mpmath.log(p) for p in shares)))
    bound = bounds_auxiliary.perplexity(np.array([1, 3, 1]) / 5, U)
    assert_within("perplexity", usage.perplexity(INDICES, 8), expected, bound)


def test_usage_counts_a_code_once_however_many_tokens_chose_it():
    assert usage.usage(INDICES, 8) == 3 / 8


@pytest.mark.parametrize("size", [1, 2, 7])
def test_all_on_one_code_is_one_and_even_use_is_their_number(size):
    assert usage.perplexity(np.full(9, size - 1), size) == 1.0
    assert usage.usage(np.full(9, size - 1), size) == 1 / size
    bound = bounds_auxiliary.perplexity(np.full(size, 1 / size), U)
    assert_within("perplexity", usage.perplexity(np.tile(np.arange(size), 3), size), size, bound)
    assert usage.usage(np.arange(size), size) == 1.0


@pytest.mark.parametrize("function", [usage.perplexity, usage.usage])
def test_what_cannot_be_counted_is_refused(function):
    with pytest.raises(ValueError, match=r"^indices hold no token: expected at least one that is not negative$"):
        function(np.array([-1, -1]), 4)
    for size in (4, 5):
        with pytest.raises(ValueError, match=f"^indices hold 5: expected less than codebook_size, {size}$"):
            function(INDICES, size)
