"""Faults put into right code on purpose: every law kills at least one."""

from vq_reference.testing.mutants.mutant import Mutant
from vq_reference.testing.mutants.subject import MUTANTS, implementation_of_mutant

__all__ = ["MUTANTS", "Mutant", "implementation_of_mutant"]
