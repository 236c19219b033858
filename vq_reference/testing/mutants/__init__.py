"""Faults put into right code on purpose: every law kills at least one."""

from vq_reference.testing.mutants.every_mutant import (
    AUXILIARY_MUTANTS,
    LASTING_MUTANTS,
    MUTANTS,
    implementation_of_mutant,
)
from vq_reference.testing.mutants.mutant import Mutant

__all__ = ["AUXILIARY_MUTANTS", "LASTING_MUTANTS", "MUTANTS", "Mutant", "implementation_of_mutant"]
