"""A right implementation of lasting layers, or of auxiliary terms, with one fault in it, wherever it is at work."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from functools import partial
from typing import Any, TypeVar, cast

from vq_reference.testing.adapters.ready.vector_quantize import residual_quantizer, shared_by_ranks, vector_quantize
from vq_reference.testing.interface.auxiliary import Auxiliary
from vq_reference.testing.interface.implementation import Implementation, Wrapped
from vq_reference.testing.interface.stateful import Lasting
from vq_reference.testing.mutants.mutant import Mutant

Given = TypeVar("Given")


@dataclass(frozen=True)
class Faulty(Wrapped):
    """A layer that runs the changed line whenever it is at work.

    Only then: laws compare it with formulas of the oracle, and those have to stay right.
    """

    layer: Any
    mutant: Mutant

    def around(self, method: str, do: Callable[..., Any], *given: Any, **named: Any) -> Any:
        """Return what the layer's method gives with the fault in it."""
        with self.mutant.applied():
            return do(*given, **named)


def faulty_lasting(mutant: Mutant) -> Implementation:
    """Return our stack, or our layer, compiled too, with that fault."""
    stacked = mutant.module.endswith(".residual")
    right = residual_quantizer() if stacked else vector_quantize(compiles=True)
    # to start processes takes seconds, and in one alone these faults are none
    right = shared_by_ranks() if mutant.killed_by.startswith("state.ranks") else right
    lasting = cast(Lasting, right.lasting)

    def faulty(make: Callable[..., Any] | None) -> Any:
        """Return `make` with the fault on, taking and giving faulty layers."""
        if make is None:
            return None

        def made(*given: Any) -> Any:
            right_layers = [each.layer if isinstance(each, Faulty) else each for each in given]
            return Faulty(_under(mutant, make, *right_layers), mutant)

        return made

    return replace(
        right,
        lasting=replace(
            lasting,
            build=faulty(lasting.build),
            carry={way: faulty(carry) for way, carry in lasting.carry.items()},
            cast=faulty(lasting.cast),
            compiled=faulty(lasting.compiled),
            build_stack=faulty(lasting.build_stack),
            again=partial(faulty_lasting, mutant),
        ),
    )


def faulty_terms(mutant: Mutant) -> Implementation:
    """Return our layer, with that fault in its auxiliary terms."""
    right = vector_quantize()
    terms = {each.name: partial(_under, mutant, getattr(right.auxiliary, each.name)) for each in fields(Auxiliary)}
    return replace(right, auxiliary=Auxiliary(**terms))


def _under(mutant: Mutant, do: Callable[..., Given], *given: Any) -> Given:
    with mutant.applied():
        return do(*given)
