"""What a law did to lasting layers, step by step: for a script that does the same to a module of somebody else."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

import numpy as np

from vq_reference.arguments import Array
from vq_reference.ema import Statistics
from vq_reference.testing.adapters.lasting import Lasting, LastingLayer, Reply, Start, Use, Wanted, WantedStack
from vq_reference.testing.theirs import theirs

T = TypeVar("T")
TOGETHER = "together"


@dataclass
class Step:
    """One step, noted before it is taken: the last one of a law that crashed has given nothing.

    did: a field of `Lasting`, a way to carry on a state, or a method of `LastingLayer`, "call" for the call itself;
    TOGETHER for what several processes did, which see nothing of this trace.
    layers: numbers of the layers that it was done with. given: what else it was given, by name. gave: what it returned.
    made: the number of the layer that it made.
    """

    did: str
    layers: tuple[int, ...]
    given: Mapping[str, Any] = field(default_factory=dict)
    gave: Any = None
    made: int | None = None


@dataclass
class Trace:
    """The steps of one example, and the layers that they made, by number."""

    steps: list[Step] = field(default_factory=list)
    layers: list[LastingLayer] = field(default_factory=list)

    def watch(self, lasting: Lasting) -> Lasting:
        """Return what makes the same layers, which note here what is done with them."""
        build_stack, cast, compiled = lasting.build_stack, lasting.cast, lasting.compiled

        def carried(way: str) -> Callable[[LastingLayer, LastingLayer], LastingLayer]:
            return lambda layer, other: self._made(way, lasting.carry[way], (layer, other))

        def built(wanted: Wanted) -> LastingLayer:
            return self._made("build", lasting.build, (), wanted=wanted)

        def stacked(wanted: WantedStack) -> LastingLayer:
            assert build_stack is not None
            return self._made("build_stack", build_stack, (), wanted=wanted)

        def converted(layer: LastingLayer, kind: str) -> LastingLayer:
            assert cast is not None
            return self._made("cast", cast, (layer,), kind=kind)

        def traced(layer: LastingLayer) -> LastingLayer:
            assert compiled is not None
            return self._made("compiled", compiled, (layer,))

        return replace(
            lasting,
            build=built,
            carry={way: carried(way) for way in lasting.carry},
            again=None if lasting.again is None else Again(lasting.again, self),
            build_stack=None if build_stack is None else stacked,
            cast=None if cast is None else converted,
            compiled=None if compiled is None else traced,
        )

    def _made(
        self, did: str, make: Callable[..., LastingLayer], layers: tuple[LastingLayer, ...], **given: Any
    ) -> LastingLayer:
        """Make a layer of these layers, and return it under watch."""
        watched = [layer for layer in layers if isinstance(layer, _Watched)]
        step = Step(did, tuple(layer.number for layer in watched), given)
        self.steps.append(step)
        made = make(*(layer.layer for layer in watched), *given.values())
        step.made = len(self.layers)
        self.layers.append(made)
        return _Watched(made, step.made, self)


@dataclass(frozen=True)
class Again:
    """Makes the implementation in another process, where it arrives without this trace; what is done there is noted."""

    again: Callable[[], Any]
    trace: Trace

    def __call__(self) -> Any:
        """Make it."""
        return self.again()

    def __reduce__(self) -> tuple[Any, ...]:
        return functools.partial, (self.again,)

    def note(self, given: Mapping[str, Any]) -> Step:
        """Note what processes are given, and return the step, which has to be told what they gave."""
        step = Step(TOGETHER, (), given)
        self.trace.steps.append(step)
        return step


@dataclass(frozen=True)
class _Watched:
    """A layer that notes what is done with it."""

    layer: LastingLayer
    number: int
    trace: Trace

    def __call__(
        self,
        x: Array,
        start: Start | None = None,
        use: Use = Use(),
        mask: Array | None = None,
        lengths: Array | None = None,
    ) -> Reply:
        given = {"x": np.array(x), "start": start, "use": use, "mask": mask, "lengths": lengths}
        return self._noted("call", lambda: self.layer(x, start, use, mask, lengths), given)

    def decode(self, indices: Array) -> Array:
        return self._noted("decode", lambda: self.layer.decode(indices), {"indices": np.array(indices)})

    def codes(self) -> Array:
        return self._noted("codes", self.layer.codes)

    def statistics(self) -> tuple[Statistics, ...]:
        return self._noted("statistics", self.layer.statistics)

    def state(self) -> Mapping[str, Array]:
        return self._noted("state", self.layer.state)

    def _noted(self, did: str, do: Callable[[], T], given: Mapping[str, Any] | None = None) -> T:
        step = Step(did, (self.number,), given or {})
        self.trace.steps.append(step)
        with theirs():
            gave = do()
        step.gave = gave
        return gave
