"""The runner: whatever a target does, it costs the laws that it hit and no other, and every law is accounted for."""

import os
from dataclasses import replace
from pathlib import Path

import pytest

from vq_reference.testing.laws.law import PROFILES
from vq_reference.testing.laws.select import NothingSelected, select
from vq_reference.testing.laws.verdict import Account, Outcome, Verdict
from vq_reference.testing.reporting.results import Plan
from vq_reference.testing.run.runner import run

# the first trains with every estimator, and its file is the one that comes first
HIT, LEFT = "output.extreme", "rotation.output"
ENVIRONMENT = {
    **os.environ,
    "PYTHONPATH": str(Path(__file__).parents[1] / "support"),
    "PYTEST_PLUGINS": "faulty_targets",
}


def ran(target, *laws, **changes):
    """Run the laws in one child at a time, and return the result and what was said on the way."""
    said = []
    plan = replace(Plan(target, laws or (HIT, LEFT), "quick", environment=ENVIRONMENT), **changes)
    return run(plan, 1, said.append), said


def verdicts(result):
    return {outcome.law: outcome.verdict for outcome in result.outcomes}


@pytest.mark.parametrize(
    ("target", "message"),
    [
        ("faulty.raises", "RuntimeError: no gradient on this machine"),
        ("faulty.kills", "ended its interpreter (exit code 7)"),
    ],
)
def test_a_target_that_breaks_down_costs_the_law_that_it_hit(target, message):
    """The law that came next is run all the same, in a new interpreter where the last one is gone."""
    result, said = ran(target)
    assert verdicts(result) == {HIT: Verdict.CRASHED, LEFT: Verdict.HELD}
    assert result.outcomes[0].message == message
    assert [outcome.law for outcome in said] == [HIT, LEFT]


def test_a_target_that_hangs_costs_its_time_and_one_law():
    """The limit is for each law."""
    result, _ = ran("faulty.hangs", limit=2.0)
    assert verdicts(result) == {HIT: Verdict.CRASHED, LEFT: Verdict.HELD}
    assert result.outcomes[0].message == "took more than 2 s, its --limit"


def test_a_law_that_draws_more_examples_may_take_longer():
    """Ten times the examples of a law that is within its limit take it beyond."""
    allowed = [Plan("faulty.hangs", (HIT,), profile).seconds_for_a_law for profile in PROFILES]
    assert allowed == [120.0, 120.0, 1200.0]


def test_a_target_that_prints_megabytes_costs_nothing():
    """And the run says how often each law was tried: one that was tried on nothing would hold."""
    result, _ = ran("faulty.prints")
    assert verdicts(result) == {HIT: Verdict.HELD, LEFT: Verdict.HELD}
    assert all(outcome.examples > 1 for outcome in result.outcomes)
    assert {"vq-reference", "numpy", "python"} <= set(result.versions)


@pytest.mark.parametrize(
    ("target", "message"),
    [
        ("faulty.import", "No module named 'faulty'"),
        ("faulty.exits", "faulty.exits ended its interpreter (exit code 9)"),
    ],
)
def test_a_target_that_cannot_be_made_leaves_its_laws_not_run(target, message):
    """Not run is never forgiven, whatever the level of the law."""
    result, _ = ran(target)
    assert verdicts(result) == {HIT: Verdict.NOT_RUN, LEFT: Verdict.NOT_RUN}
    assert all(message in outcome.message for outcome in result.outcomes)
    assert all(outcome.fails(strict=False) for outcome in result.outcomes)
    assert not result.versions


def test_an_account_that_does_not_balance_fails_the_run():
    """Lost, counted twice, or not planned at all: each is named."""
    held = Outcome("a.held", "must", "…", Verdict.HELD)
    assert not Account(["a.held"], [held]).fails(strict=True)
    for planned, ended in ((["a.held", "a.lost"], [held]), (["a.held"], [held, held]), ([], [held])):
        account = Account(planned, ended)
        assert account.fails(strict=False)
        assert f"UNACCOUNTED: {', '.join(account.unaccounted)}" in str(account)


@pytest.mark.parametrize(
    ("verdict", "level", "expectation", "fails", "fails_strictly"),
    [
        (Verdict.HELD, "must", "", False, False),
        (Verdict.HELD, "should", "a known fault", True, True),
        (Verdict.BROKEN, "must", "", True, True),
        (Verdict.BROKEN, "should", "", False, True),
        (Verdict.CRASHED, "must", "", True, True),
        (Verdict.CRASHED, "should", "", False, True),
        (Verdict.EXPECTED, "must", "a known fault", False, False),
        (Verdict.NOT_APPLICABLE, "must", "", False, False),
        (Verdict.NOT_RUN, "should", "", True, True),
    ],
)
def test_what_fails_a_run(verdict, level, expectation, fails, fails_strictly):
    """A must-law does; a should-law with --strict; a law not run, or holding against expectation, always."""
    outcome = Outcome("a.law", level, "…", verdict, expectation=expectation)
    assert outcome.fails(strict=False) == fails
    assert outcome.fails(strict=True) == fails_strictly


@pytest.mark.parametrize(
    "expression", ["rotation and", "rotation + output", "1", "no_such_law", "not (rotation or x.y)"]
)
def test_an_expression_that_selects_nothing_is_refused_by_name(expression):
    """A run of no law is green, and says nothing."""
    with pytest.raises(NothingSelected, match="'"):
        select(["rotation.output", "x.y"], expression=expression)
