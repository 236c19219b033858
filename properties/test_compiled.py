"""Compiled code: values, indices, gradients and state as in eager mode.

Compiling takes seconds, so a few layers stand for all; the backend runs the traced graph without generating code.
"""

import numpy as np

from vq_reference.codebook import Layer
from vq_reference.testing.interface.stateful import Averaging, Use, Wanted
from vq_reference.testing.interface.subjects import Subject, start
from vq_reference.testing.laws.expected.ema_step import assert_same_step
from vq_reference.testing.laws.expected.nearest_per_head import decided
from vq_reference.testing.laws.expected.same_reply import assert_same_reply
from vq_reference.testing.laws.law import law
from vq_reference.vector_quantize import VectorQuantize

SOURCE = "what a user of torch.compile relies on"
NEEDS = {"lasting", "compiled"}


def subjects(implementation):
    """Yield a layer of the usual kind, and one of trained codes with projections, heads and the cosine metric."""
    generator, means, offers = np.random.default_rng(0), implementation.meaning, implementation.offers

    def grid(*shape):
        return generator.integers(-16, 17, shape) / 8

    dim, size = implementation.sizes or (3, 4)
    x, u = grid(9, dim), implementation.precision.unit_roundoff
    layer = VectorQuantize(grid(1, size, dim), trained="ema" not in offers)
    averaging = Averaging(0.5, 0.125 if "smoothing" in offers else 0.0) if "ema" in offers else None
    yield Subject(Wanted(layer, averaging), x[decided(means(layer), x, u)], means)
    if {"trained", "heads", "projections", "cosine"} <= offers:
        inward, outward = Layer(grid(4, 3), grid(4)), Layer(grid(3, 4), grid(3))
        layer = VectorQuantize(grid(2, 4, 2), 2, inward, outward, unit=True, trained=True)
        yield Subject(Wanted(layer), x[decided(layer, x, u)])


def compared(implementation, training, mask):
    """Call each layer twice, eager and compiled, and compare what they reply and how they move."""
    u = implementation.precision.unit_roundoff
    for subject in subjects(implementation):
        begin = start(subject.x)
        present = np.arange(len(subject.x)) % 3 != 0 if mask else None
        eager, traced = (implementation.lasting.build(subject.wanted) for _ in range(2))
        before = eager.statistics()
        first = eager(subject.x, begin, Use(training), mask=present)
        second = implementation.lasting.compiled(traced)(subject.x, begin, Use(training), mask=present)
        assert_same_reply(subject.layer, subject.x, begin, first, second, u, present)
        there = np.ones(len(subject.x), bool) if present is None else present
        yield subject, before, subject.x[there], first.indices[there], eager, traced, u


@law("compiled.reply", level="should", source=SOURCE, needs=NEEDS)
def test_compiled_code_replies_as_eager_code(implementation):
    """A compiled layer gives the output, the indices, the loss and the gradients of the eager one."""
    assert list(compared(implementation, training=False, mask=False))


@law("compiled.state", level="should", source=SOURCE, needs=NEEDS)
def test_compiled_code_moves_the_state_as_eager_code(implementation):
    """A training step of a compiled layer moves counts, sums and codes as a step of the eager one."""
    for moved in compared(implementation, training=True, mask=False):
        assert_same_step(*moved)


@law("compiled.mask", level="should", source=SOURCE, needs=NEEDS | {"mask"})
def test_compiled_code_masks_as_eager_code(implementation):
    """A compiled layer gives with a mask what the eager one gives with it, in the reply and in the state."""
    for moved in compared(implementation, training=True, mask=True):
        assert_same_step(*moved)
