"""Whether a mutant is killed by the law that it names."""

from vq_reference.testing.laws.registry import laws
from vq_reference.testing.laws.verdict import Verdict
from vq_reference.testing.mutants import implementation_of_mutant
from vq_reference.testing.mutants.kill import first_failure

LAWS = laws()
# laws that start processes, and so have their tests with those that do
RANKS = {law for law in LAWS if law.startswith("state.ranks")}


def assert_is_killed(mutant):
    """Assert that its law sees it, and that the verdict is the one that the mutant names."""
    name = mutant.name
    faulty = implementation_of_mutant(name)
    law = LAWS[mutant.killed_by]
    assert not faulty.lacks(law.needs)
    failure = first_failure(law, faulty)
    assert failure is not None, f"{law.id} holds on {name}, which is wrong: {mutant.why}"
    verdict = Verdict.BROKEN if isinstance(failure.error, AssertionError) else Verdict.CRASHED
    assert verdict is mutant.verdict, f"{law.id} is {verdict.value} and not {mutant.verdict.value}: {failure.error!r}"
