"""No must-law breaks on right implementations in unusual forms, of those laws that are tried on each."""

import pytest
from unusual_targets import TARGETS

from vq_reference.testing.laws.registry import laws
from vq_reference.testing.laws.verdict import Verdict
from vq_reference.testing.run.judge import judge

# each implementation is given one law in so many here, each another share; all of them on demand
SHARES = 12
MUST = [law for law in laws().values() if law.level == "must"]


def test_there_are_fifteen():
    assert len(TARGETS) >= 15


@pytest.mark.parametrize("name", TARGETS)
def test_no_law_breaks_on_a_right_implementation(name):
    implementation = TARGETS[name]()
    applying = [law for law in MUST if not implementation.lacks(law.needs)]
    mine = applying[list(TARGETS).index(name) % SHARES :: SHARES]
    outcomes = [judge(law, implementation, "quick", None)[0] for law in mine]
    assert mine
    assert not [f"{o.law}: {o.message}" for o in outcomes if o.verdict in (Verdict.BROKEN, Verdict.CRASHED)]
