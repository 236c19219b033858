"""What crossed the border last: the layer that was asked for, and how it was called."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from vq_reference.arguments import Array
from vq_reference.simvq import SimVQ
from vq_reference.testing.adapters.implementation import Answer, Call, Cotangent, Implementation, Layer


@dataclass
class Border:
    """An implementation under watch: when a law has failed, its last call, since hypothesis ends on the smallest.

    reference: the layer that was built last; x, cotangents, how: of the call that came last, if any came after it.
    """

    reference: SimVQ | None = None
    x: Array | None = None
    cotangents: tuple[Cotangent, ...] = ()
    how: Call = field(default_factory=Call)

    def watch(self, implementation: Implementation) -> Implementation:
        """Return the implementation, whose layers note here how they are called."""

        def build(reference: SimVQ) -> Layer:
            self.reference, self.x = reference, None
            return _Watched(implementation.build(reference), reference, self)

        return replace(implementation, build=build)


@dataclass(frozen=True)
class _Watched:
    layer: Layer
    reference: SimVQ
    border: Border

    def __call__(self, x: Array, cotangents: Sequence[Cotangent] = (), how: Call = Call()) -> Answer:
        border = self.border
        border.reference, border.x, border.cotangents, border.how = self.reference, np.array(x), tuple(cotangents), how
        # laws that call a layer in the ordinary way fit implementations that know no other
        return self.layer(x, cotangents) if how == Call() else self.layer(x, cotangents, how)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.layer, name)
