"""What crossed the border last: the layer that was asked for, and how it was called."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple, TypeAlias

import numpy as np

from vq_reference.arguments import Array
from vq_reference.simvq import SimVQ
from vq_reference.testing.interface.auxiliary import TERMS
from vq_reference.testing.interface.implementation import Answer, Call, Cotangent, Form, Implementation, Layer, Wrapped
from vq_reference.testing.recording.foreign_code import theirs
from vq_reference.testing.recording.trace import Trace


class Called(NamedTuple):
    """A call: the layer that was asked for, its tokens, where its backwards began, and how it was called.

    layer: its number, in the order in which they were built. form: of the answer; None where the call raised.
    """

    reference: SimVQ
    x: Array
    cotangents: tuple[Cotangent, ...]
    how: Call
    layer: int
    form: Form | None = None


class Decoded(NamedTuple):
    """A decoding of these indices, (N,). returned: whether they are those that the call before returned."""

    reference: SimVQ
    indices: Array
    layer: int
    returned: bool = False


class Overwritten(NamedTuple):
    """What the call before had returned was overwritten in place."""

    reference: SimVQ
    layer: int


class Stepped(NamedTuple):
    """What is trained was changed in place, so that the layer is this one."""

    reference: SimVQ
    layer: int


Step: TypeAlias = "Called | Decoded | Overwritten | Stepped"


@dataclass
class Border:
    """An implementation under watch: when a law has failed, what crossed last, since hypothesis ends on the smallest.

    reference: the layer that was built last. built: how many there were. steps: what the last example did, in order.
    terms: the auxiliary terms that it asked for, by name, and of what. trace: what it did with layers that last.
    """

    reference: SimVQ | None = None
    built: int = 0
    steps: list[Step] = field(default_factory=list)
    terms: list[tuple[str, tuple[Any, ...]]] = field(default_factory=list)
    trace: Trace = field(default_factory=Trace)

    @property
    def calls(self) -> list[Called]:
        """The calls among the steps."""
        return [step for step in self.steps if isinstance(step, Called)]

    @property
    def last(self) -> Called | None:
        """The last call of the layer that was built last; None where it was never called."""
        last = self.calls[-1] if self.calls else None
        return last if last and last.reference is self.reference else None

    def begin(self) -> None:
        """Forget the example before."""
        self.reference = None
        self.steps.clear()
        self.terms.clear()
        self.trace.steps.clear()
        self.trace.layers.clear()

    def watch(self, implementation: Implementation) -> Implementation:
        """Return the implementation, whose layers note here how they are called."""

        def build(reference: SimVQ) -> Any:
            self.reference, self.built = reference, self.built + 1
            with theirs():
                return _Watched(implementation.build(reference), reference, self.built, self)

        def asked(name: str, term: Callable[..., Any]) -> Callable[..., Any]:
            def noted(*given: Any) -> Any:
                self.terms.append((name, given))
                return term(*given)

            return noted

        lasting = None if implementation.lasting is None else self.trace.watch(implementation.lasting)
        terms = implementation.auxiliary
        if terms is not None:
            offered = {name: getattr(terms, name) for name in TERMS}
            terms = replace(terms, **{name: term and asked(name, term) for name, term in offered.items()})
        return replace(implementation, build=build, lasting=lasting, auxiliary=terms)


@dataclass
class _Watched(Wrapped):
    layer: Layer
    reference: SimVQ
    number: int
    border: Border
    chosen: Array | None = None

    def __call__(self, x: Array, cotangents: Sequence[Cotangent] = (), how: Call = Call()) -> Answer:
        self.border.reference = self.reference
        call = Called(self.reference, np.array(x), tuple(cotangents), how, self.number)
        self.border.steps.append(call)
        # laws that call a layer in the ordinary way fit implementations that know no other
        with theirs():
            answer = self.layer(x, cotangents) if how == Call() else self.layer(x, cotangents, how)
        self.border.steps[-1] = call._replace(form=answer.form)
        self.chosen = answer.indices
        return answer

    def decode(self, indices: Array) -> Array:
        returned = self.chosen is not None and np.array_equal(indices, self.chosen)
        self.border.steps.append(Decoded(self.reference, np.array(indices), self.number, returned))
        with theirs():
            return self.layer.decode(indices)

    def overwrite_returned(self) -> None:
        self.border.steps.append(Overwritten(self.reference, self.number))
        self.layer.overwrite_returned()

    def step(self, reference: SimVQ) -> None:
        self.reference = reference
        self.border.steps.append(Stepped(reference, self.number))
        self.layer.step(reference)
