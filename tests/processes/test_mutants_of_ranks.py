"""Every mutant of several processes is killed by the law that it names."""

import pytest
from killing import RANKS, assert_is_killed

from vq_reference.testing.mutants import MUTANTS


@pytest.mark.parametrize("name", [name for name, mutant in MUTANTS.items() if mutant.killed_by in RANKS])
def test_a_mutant_is_killed_by_the_law_that_it_names(name):
    assert_is_killed(MUTANTS[name])
