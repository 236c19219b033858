"""Every mutant of a lasting layer is killed by the law that it names, and every such law kills one."""

import dataclasses
import functools

import pytest
from hypothesis.errors import UnsatisfiedAssumption

from vq_reference.testing.adapters.lasting import LASTING
from vq_reference.testing.catalogue import laws
from vq_reference.testing.mutants import implementation_of_mutant
from vq_reference.testing.mutants.subject import LASTING_MUTANTS
from vq_reference.testing.verdict import Verdict

LAWS = {law_id: law for law_id, law in laws().items() if law.needs & set(LASTING)}


class Stopped(BaseException):
    """Ends hypothesis at the first example that fails: shrinking it takes seconds, and is tested elsewhere."""


def first_failure(law, implementation):
    """Run a law as it is run by default, and return the first exception that its check raises, or None."""

    @functools.wraps(law.check)
    def check(*given, **drawn):
        try:
            law.check(*given, **drawn)
        except UnsatisfiedAssumption:
            raise
        except Exception as error:
            raise Stopped from error

    try:
        dataclasses.replace(law, check=check).run(implementation)
    except Stopped as stopped:
        return stopped.__cause__
    return None


@pytest.mark.parametrize("name", LASTING_MUTANTS)
def test_a_mutant_is_killed_by_the_law_that_it_names(name):
    mutant = LASTING_MUTANTS[name]
    faulty = implementation_of_mutant(name)
    law = LAWS[mutant.killed_by]
    assert not faulty.lacks(law.needs)
    failure = first_failure(law, faulty)
    assert failure is not None, f"{law.id} holds on {name}, which is wrong: {mutant.why}"
    verdict = Verdict.BROKEN if isinstance(failure, AssertionError) else Verdict.CRASHED
    assert verdict is mutant.verdict, f"{law.id} is {verdict.value} and not {mutant.verdict.value}: {failure!r}"


@pytest.mark.parametrize("law", LAWS)
def test_every_law_kills_a_mutant(law):
    assert law in {mutant.killed_by for mutant in LASTING_MUTANTS.values()}
