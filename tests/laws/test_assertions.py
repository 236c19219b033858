"""How a law says that it is broken, and by how much: the margin."""

import numpy as np
import pytest

from vq_reference.testing.laws.assertions import LawBroken, assert_within, listening


def margins_of(*arguments):
    heard = []
    with listening(lambda what, margin: heard.append((what, margin))):
        assert_within(*arguments)
    return heard


def test_the_margin_is_the_largest_error_over_its_bound():
    assert margins_of("λ", [1.0, 2.0, 3.0], [1.0, 1.75, 3.5], [1.0, 1.0, 1.0]) == [("λ", 0.5)]
    assert margins_of("λ", [1.0, 2.0, 3.0], [1.0, 1.75, 3.5], [1.0, 0.25, 1.0]) == [("λ", 1.0)]


def test_an_error_of_zero_has_margin_zero_within_every_bound():
    for bound in (0.0, 1.0, np.inf):
        assert margins_of("λ", [2.0, np.inf, -np.inf], [2.0, np.inf, -np.inf], bound) == [("λ", 0.0)]


def test_any_error_is_beyond_a_bound_of_zero():
    with pytest.raises(LawBroken) as broken:
        assert_within("λ", 5e-324, 0.0, 0.0)
    assert broken.value.margins == np.inf


@pytest.mark.parametrize(
    ("actual", "expected", "bound"),
    [(np.nan, 1.0, np.inf), (np.nan, np.nan, 1.0), (1.0, np.nan, 1.0), (1.0, 1.5, np.nan), (np.inf, 1.0, 1e300)],
    ids=["NaN", "both NaN", "expected NaN", "bound NaN", "infinity"],
)
def test_what_is_no_number_is_beyond_every_bound(actual, expected, bound):
    with pytest.raises(LawBroken):
        assert_within("λ", [0.0, actual], [0.0, expected], [1.0, bound])


def test_opposite_infinities_are_not_equal():
    with pytest.raises(LawBroken):
        assert_within("λ", np.inf, -np.inf, 1e308)


def test_the_message_names_the_entry_farthest_beyond_its_bound():
    actual, expected = np.array([[1.0, 2.0], [3.0, 4.0]]), np.array([[1.5, 2.0], [3.0, 3.0]])
    with pytest.raises(LawBroken) as broken:
        assert_within("J", actual, expected, [[0.125, 1.0], [1.0, 0.5]])
    assert broken.value.worst == (0, 0)
    assert str(broken.value) == "J[0, 0] is 1, expected 1.5 within 0.125 (4 times the bound)"
    with pytest.raises(LawBroken, match=r"^ℓ is 1, expected 2 within 0\.5 \(2 times the bound\)$"):
        assert_within("ℓ", 1.0, 2.0, 0.5)


def test_a_nan_is_named_before_any_number():
    with pytest.raises(LawBroken, match=r"^J\[1\] is nan, expected 0 within 1 "):
        assert_within("J", [1e300, np.nan, 5.0], 0.0, 1.0)


@pytest.mark.parametrize(("actual", "expected"), [(np.ones((2, 3)), np.ones((2, 2))), (1.0, np.ones(2))])
def test_another_shape_breaks_the_law(actual, expected):
    with pytest.raises(AssertionError, match=r"^output has shape \(.*\), expected \(.*\)$"):
        assert_within("output", actual, expected, 1.0)


def test_one_expected_value_or_bound_serves_all_entries():
    assert margins_of("J", np.full((2, 3), 1.25), 1.0, np.array([[0.5], [1.0]])) == [("J", 0.5)]


def test_nothing_is_within_every_bound():
    assert margins_of("output", np.empty((0, 3)), np.empty((0, 3)), 0.0) == [("output", 0.0)]


def test_truth_values_are_numbers():
    assert margins_of("finite", np.array([True, True]), 1.0, 0.0) == [("finite", 0.0)]
    with pytest.raises(LawBroken):
        assert_within("finite", np.array([True, False]), 1.0, 0.0)


def test_a_broken_law_reports_no_margin():
    heard = []
    with listening(lambda what, margin: heard.append(margin)), pytest.raises(LawBroken):
        assert_within("λ", 1.0, 3.0, 1.0)
    assert heard == []


def test_the_innermost_listener_hears_and_the_outer_one_is_back_afterwards():
    outer, inner = [], []
    with listening(lambda what, margin: outer.append(what)):
        with listening(lambda what, margin: inner.append(what)):
            assert_within("a", 0.0, 0.0, 0.0)
        assert_within("b", 0.0, 0.0, 0.0)
    assert_within("c", 0.0, 0.0, 0.0)
    assert (outer, inner) == (["b"], ["a"])


def test_a_bound_below_zero_is_an_error_of_ours_and_allows_nothing():
    with pytest.raises(ValueError, match=r"bound of λ is -0\.5: expected none below 0"):
        assert_within("λ", np.array([1.0, 3.0]), 1.0, np.array([0.5, -0.5]))
