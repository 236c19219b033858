"""Processes that train one codebook: the same codes on every rank, and those of one process with the whole batch."""

import numpy as np

from vq_reference.testing.adapters.lasting import Averaging, Wanted
from vq_reference.testing.choice_of_heads import decided
from vq_reference.testing.law import law
from vq_reference.testing.measure import assert_within
from vq_reference.testing.moving import assert_same_step
from vq_reference.testing.ranks import Training, alone, together
from vq_reference.testing.strategies import NotApplicable
from vq_reference.testing.strategies_lasting import MOST, Subject
from vq_reference.vector_quantize import VectorQuantize

SOURCE = "training in parallel on shares of the batch, as torch's DistributedDataParallel does"
SIZE, WIDTH, TOKENS, STEPS = 6, 3, (8, 5), 3  # the last rank has fewer tokens
AVERAGING = {
    "plain": Averaging(0.5, 2.0**-10),
    "replace": Averaging(0.5, 0.0, 2.0),
    "initialise_from_data": Averaging(0.5, 2.0**-20, 0.0, True),
}


def training(averaging, u, steps=STEPS):
    """Return a layer, and tokens of which rounding decides for none at the codes that it begins with.

    The same ones in every run: to start the processes takes seconds, and each example would.
    """
    generator = np.random.default_rng(17)

    def grid(*shape):
        return generator.integers(-8 * MOST, 8 * MOST + 1, shape) / 8

    layer = VectorQuantize(grid(1, SIZE, WIDTH))
    drawn = [[grid(4 * count, WIDTH) for count in TOKENS] for _ in range(steps)]
    shares = [tuple(x[decided(layer, x, u)][:count] for x, count in zip(xs, TOKENS, strict=True)) for xs in drawn]
    return Training(Wanted(layer, averaging), shares)


def again(implementation):
    """Return what makes the implementation in another process."""
    if implementation.lasting.again is None:
        raise NotApplicable("it was made in this process alone: give it as a target, FILE.py:FUNCTION")
    return implementation.lasting.again


@law("state.ranks", level="must", source=SOURCE, needs={"ranks"})
def test_every_rank_holds_the_same_codes(implementation):
    """Processes that train together hold the same codes after every step, initialised and replaced ones too."""
    offered = [way for way in AVERAGING if way == "plain" or way in implementation.capabilities]
    u = implementation.precision.unit_roundoff
    first, second = together(again(implementation), [training(AVERAGING[way], u) for way in offered])
    for one, other in zip(first, second, strict=True):
        for here, there in zip(one, other, strict=True):
            assert_within("codes of the other rank", there.codes(), here.codes(), 0.0)
            for mine, its in zip(here.statistics(), there.statistics(), strict=True):
                assert_within("counts of the other rank", its.counts, mine.counts, 0.0)
                assert_within("sums of the other rank", its.sums, mine.sums, 0.0)


@law("state.ranks_equal_one", level="must", source=SOURCE, needs={"ranks", "ranks_equal_one"})
def test_ranks_are_one_process_with_the_whole_batch(implementation):
    """A step of processes that train together moves the codes as a step of one process with the tokens of all."""
    u = implementation.precision.unit_roundoff
    made = training(AVERAGING["plain"], u, steps=1)
    before = implementation.lasting.build(made.wanted).statistics()
    (apart,), _ = together(again(implementation), [made])
    (one,) = alone(implementation.lasting.build, made)
    x = np.concatenate(made.steps[0])
    assert_same_step(Subject(made.wanted, x), before, x, one.indices, one, apart[0], u)
