"""All mutants by name, and each as an implementation that the laws can be run on."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from vq_reference.simvq import SimVQ
from vq_reference.testing.adapters.ready.oracle import oracle
from vq_reference.testing.adapters.ready.simvq import reference_module
from vq_reference.testing.interface.implementation import Implementation
from vq_reference.testing.mutants import parts
from vq_reference.testing.mutants.faulty_layers import Faulty, faulty_lasting, faulty_terms
from vq_reference.testing.mutants.mutant import Mutant
from vq_reference.testing.mutants.tables import (
    auxiliary_losses,
    averages,
    call,
    choice,
    compiled,
    directional,
    estimators,
    heads,
    loss,
    low_precision,
    masks,
    ranks,
    rotation,
    saved_state,
    stack,
    stack_state,
    transform,
)

TABLES = (rotation, estimators, loss, transform, choice, call)
# faults of layers that outlive a call
LASTING_TABLES = (
    *(saved_state, averages, masks, heads, low_precision, stack, stack_state, compiled, directional, ranks),
    parts,
)
LASTING_MUTANTS: dict[str, Mutant] = {mutant.name: mutant for table in LASTING_TABLES for mutant in table.MUTANTS}
AUXILIARY_MUTANTS: dict[str, Mutant] = {mutant.name: mutant for mutant in auxiliary_losses.MUTANTS}
MUTANTS: dict[str, Mutant] = {
    **{mutant.name: mutant for table in TABLES for mutant in table.MUTANTS},
    **{mutant.name: mutant for mutant in parts.OF_ONE_CALL},
    **LASTING_MUTANTS,
    **AUXILIARY_MUTANTS,
}


def implementation_of_mutant(name: str) -> Implementation:
    """Return the reference with that fault: the torch module where the fault is in `vq_reference.nn`, else the oracle.

    Raises ValueError for a name that is not in MUTANTS, and for a mutant whose source has moved on.

    >>> implementation_of_mutant("reflection").name
    'mutant:reflection'
    """
    if name not in MUTANTS:
        raise ValueError(f"mutant {name!r} is not known: expected one of {', '.join(MUTANTS)}")
    mutant = MUTANTS[name]
    with mutant.applied():  # a mutant that the code has moved away from is told now, and not as a law that crashed
        pass
    if name in LASTING_MUTANTS:
        return replace(faulty_lasting(mutant), name=f"mutant:{name}")
    if name in AUXILIARY_MUTANTS:
        return replace(faulty_terms(mutant), name=f"mutant:{name}")
    right = reference_module() if mutant.module.startswith("vq_reference.nn.") else oracle()

    def build(reference: SimVQ) -> Any:
        with mutant.applied():
            return Faulty(right.build(reference), mutant)

    return replace(right, name=f"mutant:{name}", build=build)
