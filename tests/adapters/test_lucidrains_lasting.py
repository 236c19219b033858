"""Layers that last of vector-quantize-pytorch, as installed: what is expected to break does, and nothing else."""

import datetime
from importlib.metadata import version

import pytest

from vq_reference.testing.adapters.ready.lucidrains_stateful import OFFERS
from vq_reference.testing.laws.registry import laws
from vq_reference.testing.laws.verdict import Verdict
from vq_reference.testing.mutants.kill import first_failure
from vq_reference.testing.run.expectations import load, shipped
from vq_reference.testing.run.judge import judge
from vq_reference.testing.run.targets import READY, implementation_of

pytestmark = pytest.mark.filterwarnings("ignore")  # that package warns of shapes that do not fit
LAWS = laws()
PACKAGE = "vector-quantize-pytorch"
EXPECTED = load(shipped()[PACKAGE], LAWS)
TARGETS = [f"lucidrains.VectorQuantize[{mode}]" if mode else "lucidrains.VectorQuantize" for mode in OFFERS]
STACKS = ["lucidrains.ResidualVQ[2]", "lucidrains.ResidualSimVQ[1]"]
FAULTS = (Verdict.BROKEN, Verdict.CRASHED)
FAMILIES = ("state", "ema", "initialise", "replace", "mask", "heads", "stack")


def lasting(target):
    """Return the adapter, its must-laws of layers that last, and those of them that are expected to break."""
    made = implementation_of(target)
    its = {law for law in LAWS if law.startswith(FAMILIES) and LAWS[law].level == "must"}
    its = {law for law in its if not made.lacks(LAWS[law].needs)}
    applying = [e for e in EXPECTED if e.applies(target, {PACKAGE: version(PACKAGE)}, datetime.date.today())]
    return made, its, its & {expectation.law for expectation in applying}


# of the laws that hold each target is given one in so many here, each another share; all of them by `vq-check run`
SHARES = 4


@pytest.mark.parametrize("target", [*TARGETS, *STACKS])
def test_what_is_expected_to_break_does_and_nothing_else(target):
    made, its, expected = lasting(target)
    assert len(its) >= 8
    broken = {law for law in expected if first_failure(LAWS[law], made)}
    assert broken == expected
    mine = sorted(its - expected)[[*TARGETS, *STACKS].index(target) % SHARES :: SHARES]
    assert mine
    assert not {law for law in mine if judge(LAWS[law], made, "quick", None)[0].verdict in FAULTS}


def test_every_mode_with_layers_that_last_is_a_ready_adapter():
    assert set(TARGETS) <= set(READY)
    assert all("lasting" in implementation_of(target).capabilities for target in TARGETS)
