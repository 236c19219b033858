"""What a law did to lasting layers, step by step: for a script that does the same to a module of somebody else."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from vq_reference.testing.interface.implementation import Wrapped
from vq_reference.testing.interface.stateful import Lasting, LastingLayer, Wanted, WantedStack
from vq_reference.testing.recording.foreign_code import theirs

TOGETHER = "together"
# what the methods of a layer take, by the names in `Step.did`
PARAMETERS = {
    "call": inspect.signature(LastingLayer.__call__),
    **{name: inspect.signature(getattr(LastingLayer, name)) for name in ("decode", "codes", "statistics", "state")},
}


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
class _Watched(Wrapped):
    """A layer that notes what is done with it."""

    layer: LastingLayer
    number: int
    trace: Trace

    def around(self, method: str, do: Callable[..., Any], *given: Any, **named: Any) -> Any:
        bound = PARAMETERS[method].bind(None, *given, **named)
        bound.apply_defaults()
        _, *given_to = bound.arguments.items()
        step = Step(method, (self.number,), {name: _as_it_is(value) for name, value in given_to})
        self.trace.steps.append(step)
        with theirs():
            step.gave = do(*(value for _, value in given_to))
        return step.gave


def _as_it_is(value: Any) -> Any:
    """Return an array as it is now, whatever the layer does to it."""
    return np.array(value) if isinstance(value, np.ndarray) else value
