"""What a law asks of an implementation: a layer of the oracle, tokens put on purpose, and what is on offer."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextvars import ContextVar
from dataclasses import dataclass, field, replace

import numpy as np

from vq_reference.arguments import Array
from vq_reference.estimators import Estimator
from vq_reference.simvq import SimVQ
from vq_reference.testing.interface.precision import PRECISIONS, Precision
from vq_reference.testing.interface.stateful import Lasting, LastingLayer, Start, Wanted, WantedStack
from vq_reference.vector_quantize import VectorQuantize

# set while a law runs: the dtype whose numbers are drawn
precision: ContextVar[Precision] = ContextVar("precision", default=PRECISIONS["float32"])
# and (D, K) where the implementation is an instance, whose sizes are given
given_sizes: ContextVar[tuple[int, int] | None] = ContextVar("given sizes", default=None)
# and what it offers: heads, projections, masks and the like are drawn where there are such
offers: ContextVar[frozenset[str]] = ContextVar("offers", default=frozenset({"euclidean"}))


class NotApplicable(Exception):
    """What a law draws cannot be had of this implementation. The message says why."""


@dataclass(frozen=True)
class Case:
    """What most laws are about: a layer, as the oracle's dataclass, and tokens x, (N, D)."""

    reference: SimVQ
    x: Array

    @property
    def codes(self) -> Array:
        """The effective codes, (K, D), exactly those that the implementation has."""
        return self.reference.codebook


# Where a token may stand, as seen from one code. Those of REGULAR occur in training; `must` laws draw no other.
REGULAR = ("anywhere", "at an angle", "along the code", "on the code", "tie")
OPPOSITE = ("nearly opposite", "opposite")
EXTREME = ("zero", "tiny", "huge", "zero code")
PLACES = REGULAR + OPPOSITE + EXTREME
# Norms that occur in training, and the largest angle, in radians, at which the usual formula still has most digits.
REGULAR_NORMS = (2.0**-6, 2.0**6)
REGULAR_ANGLE = 3.0
TRAINED: tuple[Estimator, ...] = ("straight_through", "rotation")


def cotangents(case: Case, seed: int = 0) -> Array:
    """Return a gradient at the output, (N, D), with all entries different and none zero, representable exactly."""
    count = case.x.size
    values = (np.arange(count) * 5 + seed) % 16 / 8 - 1.0625
    return np.asarray(values.reshape(case.x.shape))


@dataclass(frozen=True)
class Subject:
    """A layer that is wanted, and tokens x, (N, dim), of which rounding decides for none.

    means: what the implementation declares that its layer is where another is wanted.
    """

    wanted: Wanted
    x: Array
    means: Callable[[VectorQuantize], VectorQuantize] = field(default=lambda layer: layer, repr=False)

    @property
    def layer(self) -> VectorQuantize:
        """What the oracle says of it."""
        return self.means(self.wanted.layer)

    @property
    def begin(self) -> Start:
        """Where a backward begins."""
        return start(self.x)

    @property
    def most(self) -> int:
        """How many tokens a codebook gets at most."""
        return len(self.x) * self.layer.heads

    def build(self, lasting: Lasting) -> LastingLayer:
        """Return the layer that is wanted."""
        return lasting.build(self.wanted)

    def another(self) -> Subject:
        """Return the subject with a layer of the same sizes with other codes."""
        layer = replace(self.wanted.layer, codes=-self.wanted.layer.codes[:, ::-1] / 2)
        return replace(self, wanted=replace(self.wanted, layer=layer))


@dataclass(frozen=True)
class StackSubject:
    """A stack that is wanted, and tokens x, (N, D)."""

    wanted: WantedStack
    x: Array

    @property
    def begin(self) -> Start:
        """Where a backward begins."""
        return start(self.x, [1.0] * len(self.wanted.stack.codes))

    @property
    def most(self) -> int:
        """How many tokens a codebook gets at most."""
        return len(self.x)

    def build(self, lasting: Lasting) -> LastingLayer:
        """Return the stack that is wanted."""
        assert lasting.build_stack is not None
        return lasting.build_stack(self.wanted)

    def another(self) -> StackSubject:
        """Return the subject with a stack of the same sizes with other codes."""
        stack = replace(self.wanted.stack, codes=tuple(-codes[::-1] / 2 for codes in self.wanted.stack.codes))
        return replace(self, wanted=replace(self.wanted, stack=stack))


def start(x: Array, losses: Sequence[float] = (1.0,)) -> Start:
    """Return a gradient at the output with no entry 0 and few equal, representable exactly, and one at the losses."""
    values = (np.arange(x.size) * 5 % 16) / 8 - 1.0625
    return Start(values.reshape(x.shape), losses)
