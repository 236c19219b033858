"""All mutants by name, and each as an implementation that the laws can be run on."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

from vq_reference.arguments import Array
from vq_reference.simvq import SimVQ
from vq_reference.testing.adapters.implementation import Answer, Call, Cotangent, Implementation, Layer
from vq_reference.testing.adapters.oracle import oracle
from vq_reference.testing.adapters.sim_vq import reference_module
from vq_reference.testing.mutants import (
    auxiliary,
    call,
    choice,
    compiled,
    directional,
    estimators,
    heads,
    loss,
    low_precision,
    masks,
    moving_average,
    parts,
    ranks,
    rotation,
    stack,
    stack_state,
    state,
    transform,
)
from vq_reference.testing.mutants.lasting import faulty_lasting, faulty_terms
from vq_reference.testing.mutants.mutant import Mutant

Given = TypeVar("Given")

TABLES = (rotation, estimators, loss, transform, choice, call)
# faults of layers that outlive a call
LASTING_TABLES = (
    *(state, moving_average, masks, heads, low_precision, stack, stack_state, compiled, directional, ranks),
    parts,
)
LASTING_MUTANTS: dict[str, Mutant] = {mutant.name: mutant for table in LASTING_TABLES for mutant in table.MUTANTS}
AUXILIARY_MUTANTS: dict[str, Mutant] = {mutant.name: mutant for mutant in auxiliary.MUTANTS}
MUTANTS: dict[str, Mutant] = {
    **{mutant.name: mutant for table in TABLES for mutant in table.MUTANTS},
    **{mutant.name: mutant for mutant in parts.OF_ONE_CALL},
    **LASTING_MUTANTS,
    **AUXILIARY_MUTANTS,
}


@dataclass(frozen=True)
class _FaultyLayer:
    """A layer that runs the changed line whenever it is at work.

    Only then: laws compare it with formulas of the oracle, and those have to stay right.
    """

    layer: Layer
    mutant: Mutant

    def __call__(self, x: Array, cotangents: Sequence[Cotangent] = (), how: Call = Call()) -> Answer:
        """Call the layer."""
        return self._at_work(lambda: self.layer(x, cotangents, how))

    def decode(self, indices: Array) -> Array:
        """Decode with the layer."""
        return self._at_work(lambda: self.layer.decode(indices))

    def state(self) -> Mapping[str, Array]:
        """Return the layer's state."""
        return self._at_work(self.layer.state)

    def overwrite_returned(self) -> None:
        """Overwrite what the layer's last call returned."""
        self._at_work(self.layer.overwrite_returned)

    def step(self, reference: SimVQ) -> None:
        """Change what the layer trains."""
        self._at_work(lambda: self.layer.step(reference))

    def _at_work(self, do: Callable[[], Given]) -> Given:
        with self.mutant.applied():
            return do()


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

    def build(reference: SimVQ) -> Layer:
        with mutant.applied():
            return _FaultyLayer(right.build(reference), mutant)

    return replace(right, name=f"mutant:{name}", build=build)
