"""Codes that are moving averages: the closed form, and what follows from it for each code."""

import numpy as np
from hypothesis import assume
from hypothesis import strategies as st

from vq_reference import ema
from vq_reference.ema import Statistics
from vq_reference.testing.interface.stateful import Averaging, Wanted
from vq_reference.testing.laws.assertions import assert_within
from vq_reference.testing.laws.bounds import bounds_state
from vq_reference.testing.laws.expected.ema_step import batches, one_step, with_a_far_code
from vq_reference.testing.laws.expected.hull import hull
from vq_reference.testing.laws.law import law
from vq_reference.testing.laws.strategies.stateful_cases import constructed_averagings, kept, subjects
from vq_reference.vector_quantize import VectorQuantize

BEYOND = "what exceeds codes and tokens"
OORD = "van den Oord et al., arXiv 1711.00937, A.1"
EMA = {"lasting", "ema"}
unsmoothed = st.sampled_from([0.5, 0.875]).map(Averaging)
smoothed = st.sampled_from([0.5, 0.875]).map(lambda decay: Averaging(decay, 0.125))
averages = subjects("ema", metric="euclidean")
unsmoothed_averages = subjects("ema", "euclidean", averaging=unsmoothed)
plain = subjects("ema", "euclidean", "plain", unsmoothed)


def stepped(implementation, subject, steps):
    """Return the layer after that many calls in training, and what each codebook remembered before and was given."""
    layer = subject.build(implementation.lasting)
    before = layer.statistics()
    given = [one_step(subject, layer, implementation.precision.unit_roundoff) for _ in range(steps)]
    return layer, before, list(zip(*given, strict=True))


def absolute(start, batches_of_group, decay):
    """Return the statistics with |t| and |m| for t and m: what their bounds are about."""
    return ema.unrolled(Statistics(start.counts, np.abs(start.sums)), [b.absolute for b in batches_of_group], decay)


@law("ema.statistics", level="must", source=OORD, needs={"averages"}, subject=kept("ema"), steps=st.integers(1, 3))
def test_counts_and_sums_are_moving_averages(implementation, subject, steps):
    """After T steps counts and sums are γ^T times those before, plus the steps' own with weights (1 − γ)γ^(T−1−t)."""
    u, decay = implementation.precision.unit_roundoff, subject.wanted.averaging.decay
    layer, before, given = stepped(implementation, subject, steps)
    for start, group, after in zip(before, given, layer.statistics(), strict=True):
        expected = ema.unrolled(start, [b.statistics for b in group], decay)
        assert_within("N", after.counts, expected.counts, bounds_state.ema_counts(expected.counts, steps, u))
        size = absolute(start, group, decay).sums
        bound = bounds_state.ema_sums(size, subject.most, steps, u)
        assert_within("m", after.sums, expected.sums, bound + sum(b.error for b in group))


@law("ema.codes", level="must", source=OORD, needs=EMA, subject=averages, steps=st.integers(1, 3))
def test_a_used_code_is_its_sum_over_its_smoothed_count(implementation, subject, steps):
    """A code that a token has just chosen is m/Ñ, with the declared decay and ε."""
    u, averaging = implementation.precision.unit_roundoff, subject.wanted.averaging
    layer, before, given = stepped(implementation, subject, steps)
    for start, group, codes in zip(before, given, layer.codes(), strict=True):
        used = group[-1].statistics.counts > 0
        expected = ema.unrolled(start, [b.statistics for b in group], averaging.decay)
        counts = ema.smoothed(expected.counts, averaging.epsilon)
        size = absolute(start, group, averaging.decay).sums
        bound = bounds_state.ema_codes(size, counts, len(subject.x) * subject.layer.heads, steps, u)
        bound = bound + sum(b.error for b in group) / counts[:, None]
        assert_within("m/Ñ", codes[used], (expected.sums / counts[:, None])[used], bound[used])


@law("ema.fixed_point", level="must", source=OORD, needs=EMA, subject=plain)
def test_a_code_at_the_mean_of_its_tokens_stays(implementation, subject):
    """With ε = 0 a code that stands at the mean of its own tokens stays there."""
    codes = subject.layer.codes[0]
    assume(len(np.unique(codes, axis=0)) == len(codes))
    step = np.where(np.arange(codes.shape[1]) % 2, 1, -1) / 64  # less than half of what codes are apart
    x = np.concatenate([codes + step, codes - step])
    layer = implementation.lasting.build(subject.wanted)
    layer(x)
    assert_within("codes", layer.codes()[0], codes, hull(subject, codes, x)(implementation.precision.unit_roundoff))


@law("ema.segment", level="must", source=OORD, needs=EMA, subject=plain)
def test_a_used_code_moves_straight_towards_the_mean_of_its_tokens(implementation, subject):
    """With ε = 0 a used code moves onto the segment from its old place to the mean of its tokens."""
    layer = implementation.lasting.build(subject.wanted)
    before, reply = subject.layer.codes[0], layer(subject.x)
    batch = ema.of_batch(subject.x, reply.indices[:, 0], len(before))
    used = batch.counts > 0
    old, new = before[used], layer.codes()[0, used]
    mean = batch.sums[used] / batch.counts[used, None]
    way = mean - old
    length = np.sum(way**2, axis=1)
    share = np.clip(np.sum((new - old) * way, axis=1) / np.where(length > 0, length, 1), 0, 1)
    bound = hull(subject, before, subject.x)(implementation.precision.unit_roundoff)
    assert_within("codes", new, old + share[:, None] * way, bound[used])


@law("ema.unused", level="must", source=OORD, needs=EMA, subject=unsmoothed_averages)
def test_an_unused_code_stays(implementation, subject):
    """With ε = 0 a code that no token chose stays where it is."""
    layer = implementation.lasting.build(subject.wanted)
    reply = layer(subject.x)
    u = implementation.precision.unit_roundoff
    for group, batch in enumerate(batches(subject, subject.x, reply.indices, u)):
        unused = batch.statistics.counts == 0
        codes = subject.layer.codes[group]
        bound = hull(subject, codes, np.zeros((1, codes.shape[1])))(u)
        assert_within("unused codes", layer.codes()[group, unused], codes[unused], bound[unused])


@law(
    "ema.fresh",
    level="must",
    source=OORD,
    needs=EMA,
    codebook_size=st.integers(2, 6),
    dim=st.integers(2, 4),
    averaging=constructed_averagings(),
)
def test_the_first_step_of_a_new_layer_keeps_the_scale(implementation, codebook_size, dim, averaging):
    """The first step of a layer as it is constructed takes no code beyond the largest of its codes and tokens."""
    sizes = VectorQuantize(np.zeros((1, codebook_size, dim)))
    layer = implementation.lasting.build(Wanted(sizes, averaging, placed=False))
    before = layer.codes()
    x = before[0, :-1]  # the last code is one that no token chooses
    layer(x)
    most = np.maximum(np.abs(before).max(axis=(0, 1)), np.abs(x).max(axis=0))
    u = implementation.precision.unit_roundoff
    bound = bounds_state.ema_first_step(most, len(x), codebook_size, averaging.decay, averaging.epsilon, u)
    assert_within(BEYOND, np.maximum(np.abs(layer.codes()) - most, 0), 0.0, bound[None])


@law(
    "ema.shrinkage",
    level="should",
    source=OORD,
    needs=EMA | {"smoothing"},
    subject=subjects("ema", "euclidean", "plain", smoothed),
)
def test_an_unused_code_does_not_shrink_in_the_long_run(implementation, subject):
    """A code that no token chooses for a hundred steps is as far from the origin as it was, with ε > 0 too."""
    far = with_a_far_code(subject)
    layer = implementation.lasting.build(far.wanted)
    for _ in range(100):
        layer(far.x)
    expected = far.layer.codes[0, -1]
    bound = hull(far, expected[None], np.zeros((1, len(expected))))(implementation.precision.unit_roundoff)
    assert_within("the unused code", layer.codes()[0, -1], expected, 100 * bound[0])
