"""A right implementation of lasting layers, or of auxiliary terms, with one fault in it, wherever it is at work."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, replace
from functools import partial
from typing import Any, TypeVar, cast

from vq_reference.arguments import Array
from vq_reference.ema import Statistics
from vq_reference.testing.adapters.auxiliary import Auxiliary
from vq_reference.testing.adapters.implementation import Implementation
from vq_reference.testing.adapters.lasting import Lasting, LastingLayer, Reply, Start, Use
from vq_reference.testing.adapters.vector_quantize import residual_quantizer, shared_by_ranks, vector_quantize
from vq_reference.testing.mutants.mutant import Mutant

Given = TypeVar("Given")


@dataclass(frozen=True)
class _Faulty:
    """A lasting layer that runs the changed line whenever it is asked for anything."""

    layer: LastingLayer
    mutant: Mutant

    def __call__(
        self,
        x: Array,
        start: Start | None = None,
        use: Use = Use(),
        mask: Array | None = None,
        lengths: Array | None = None,
    ) -> Reply:
        """Call the layer."""
        return _under(self.mutant, self.layer, x, start, use, mask, lengths)

    def decode(self, indices: Array) -> Array:
        """Decode with the layer."""
        return _under(self.mutant, self.layer.decode, indices)

    def codes(self) -> Array:
        """Return the layer's codes."""
        return _under(self.mutant, self.layer.codes)

    def statistics(self) -> tuple[Statistics, ...]:
        """Return what the layer's codebooks remember."""
        return _under(self.mutant, self.layer.statistics)

    def state(self) -> Mapping[str, Array]:
        """Return the layer's state."""
        return _under(self.mutant, self.layer.state)


def faulty_lasting(mutant: Mutant) -> Implementation:
    """Return our stack, or our layer, compiled too, with that fault."""
    stacked = mutant.module.endswith(".residual")
    right = residual_quantizer() if stacked else vector_quantize(compiles=True)
    # to start processes takes seconds, and in one alone these faults are none
    right = shared_by_ranks() if mutant.killed_by.startswith("state.ranks") else right
    lasting = cast(Lasting, right.lasting)

    def faulty(make: Callable[..., LastingLayer] | None) -> Any:
        """Return `make` with the fault on, taking and giving faulty layers."""
        if make is None:
            return None

        def made(*given: Any) -> LastingLayer:
            right_layers = [each.layer if isinstance(each, _Faulty) else each for each in given]
            return _Faulty(_under(mutant, make, *right_layers), mutant)

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
