"""What crossed the border last: the layer that was asked for, and how it was called."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import numpy as np

from vq_reference.arguments import Array
from vq_reference.simvq import SimVQ
from vq_reference.testing.adapters.implementation import Answer, Call, Cotangent, Implementation, Layer
from vq_reference.testing.trace import Trace


class Called(NamedTuple):
    """A call: the layer that was asked for, its tokens, where its backwards began, and how it was called."""

    reference: SimVQ
    x: Array
    cotangents: tuple[Cotangent, ...]
    how: Call


@dataclass
class Border:
    """An implementation under watch: when a law has failed, what crossed last, since hypothesis ends on the smallest.

    reference: the layer that was built last. calls: those of the last example, in their order. trace: what that did
    with layers that last.
    """

    reference: SimVQ | None = None
    calls: list[Called] = field(default_factory=list)
    trace: Trace = field(default_factory=Trace)

    @property
    def last(self) -> Called | None:
        """The last call of the layer that was built last; None where it was never called."""
        last = self.calls[-1] if self.calls else None
        return last if last and last.reference is self.reference else None

    def begin(self) -> None:
        """Forget the example before."""
        self.reference = None
        self.calls.clear()
        self.trace.steps.clear()
        self.trace.layers.clear()

    def watch(self, implementation: Implementation) -> Implementation:
        """Return the implementation, whose layers note here how they are called."""

        def build(reference: SimVQ) -> Layer:
            self.reference = reference
            return _Watched(implementation.build(reference), reference, self)

        lasting = None if implementation.lasting is None else self.trace.watch(implementation.lasting)
        return replace(implementation, build=build, lasting=lasting)


@dataclass(frozen=True)
class _Watched:
    layer: Layer
    reference: SimVQ
    border: Border

    def __call__(self, x: Array, cotangents: Sequence[Cotangent] = (), how: Call = Call()) -> Answer:
        self.border.reference = self.reference
        self.border.calls.append(Called(self.reference, np.array(x), tuple(cotangents), how))
        # laws that call a layer in the ordinary way fit implementations that know no other
        return self.layer(x, cotangents) if how == Call() else self.layer(x, cotangents, how)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.layer, name)
