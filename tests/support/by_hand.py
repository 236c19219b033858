"""What a bound is compared by with the number that its derivation gives."""

import numpy as np

from vq_reference.testing.laws.assertions import assert_within
from vq_reference.testing.laws.bounds.bounds import gamma

# coarse enough for products of errors to count: a bound that leaves them out is another number
U = 2.0**-10


def same(actual, expected):
    """Assert that both are float64 numbers of one shape, equal up to a few dozen roundings of float64 itself."""
    assert np.asarray(actual).dtype == np.float64
    assert np.shape(actual) == np.shape(expected)
    assert_within("bound", actual, expected, gamma(50, 2.0**-53) * np.abs(expected))
