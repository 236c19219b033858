"""Bounds name themselves while a law runs: those that it used, with their derivations, and no others."""

import numpy as np
import pytest
from hypothesis import strategies as st

from vq_reference.testing.explain import bounds_of, explain
from vq_reference.testing.laws.assertions import assert_within
from vq_reference.testing.laws.bound_docs import noting
from vq_reference.testing.laws.bounds import bounds, bounds_layer
from vq_reference.testing.laws.law import Law
from vq_reference.testing.laws.registry import laws
from vq_reference.testing.run.judge import judge
from vq_reference.testing.run.targets import implementation_of


def test_a_bound_is_noted_by_name_and_derivation_and_what_it_is_made_of_is_not():
    x = np.ones((1, 2))
    with noting() as used:
        bounds.output(x, x, "rotation", 2.0**-24)
        bounds.output(x, x, "straight_through", 2.0**-24)
    bounds.direction(2, 2.0**-24)
    ((derivation, name),) = used.items()
    assert name == "output"
    assert bounds.output.__doc__.split()[:3] == derivation.split()[:3]
    assert ">>>" not in derivation


def test_two_bounds_of_one_name_are_two():
    assert bounds.output.__name__ == bounds_layer.output.__name__
    with noting() as used:
        bounds.output(np.ones((1, 2)), np.ones((1, 2)), "none", 2.0**-24)
        with pytest.raises(AttributeError):
            bounds_layer.output(None, None, 2.0**-24)
    assert list(used.values()) == ["output", "output"]


def through_a_helper(count):
    return getattr(bounds, "mean" + "_square")(count, 2.0**-24)


@pytest.mark.parametrize("many", [False, True])
def test_a_report_names_the_bounds_that_the_failing_example_used_however_they_were_called(many):
    """No source code is read: the helper names none, and the branch that is not taken uses another one."""

    def check(implementation, number):
        """Nothing is right."""
        limit = through_a_helper(number) if many else bounds.direction(number, 2.0**-24)
        assert_within("it", 1.0, 0.0, limit)

    law = Law("a.law", "must", "a paper", frozenset(), check, {"number": st.just(3)})
    outcome, _ = judge(law, implementation_of("reference.oracle"), "quick", None)
    (derivation,) = outcome.counterexample.derivations
    assert derivation.startswith("mean_square: " if many else "direction: ")


@pytest.mark.parametrize(
    ("law", "names"),
    [
        ("rotation.proper", {"rotation", "determinant"}),
        ("loss.transform", {"transform_gradient"}),
        ("ema.unused", {"ema_codes", "affine"}),
        ("call.input", set()),
    ],
)
def test_a_law_is_explained_by_the_bounds_that_it_uses_on_the_reference(law, names):
    assert set(bounds_of(laws()[law]).values()) == names
    shown = {text.split(": ")[0] for heading, text in explain(laws()[law]) if heading == "bound"}
    assert shown == names
