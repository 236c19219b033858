"""The EMA oracle, against the published formula in exact fractions, and against the laws that follow from it."""

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vq_reference import ema
from vq_reference.testing.laws.assertions import assert_within
from vq_reference.testing.laws.bounds import bounds_state

U = 2.0**-53
DECAY = 0.875
EPSILON = 2.0**-10


def batches(seed, steps=5, codebook_size=4, dim=3):
    """Yield tokens, (N, D), and their indices; the last code is never chosen."""
    rng = np.random.default_rng(seed)
    for step in range(steps):
        count = 6 + step
        yield rng.normal(size=(count, dim)), rng.integers(0, codebook_size - 1, count)


def followed(seed, epsilon):
    """Return the first codes, the statistics of each step, and the codes and statistics at the end."""
    start = np.random.default_rng(seed + 100).normal(size=(4, 3))
    codes, statistics, seen = start, ema.placed(start, DECAY, 0.0), []
    for tokens, indices in batches(seed):
        seen.append(ema.of_batch(tokens, indices, len(start)))
        statistics = ema.average(statistics, seen[-1], DECAY)
        codes = ema.codes(codes, statistics, seen[-1], epsilon)
    return start, seen, codes, statistics


def absolute_sums(start, seed):
    absolute = [ema.of_batch(np.abs(tokens), indices, len(start)) for tokens, indices in batches(seed)]
    return ema.unrolled(ema.placed(np.abs(start), DECAY, 0.0), absolute, DECAY).sums


@pytest.mark.parametrize("seed", range(3))
def test_steps_one_after_another_give_the_unrolled_sum(seed):
    start, seen, _, after = followed(seed, EPSILON)
    unrolled = ema.unrolled(ema.placed(start, DECAY, 0.0), seen, DECAY)
    assert_within("counts", after.counts, unrolled.counts, 2 * bounds_state.ema_counts(unrolled.counts, len(seen), U))
    bound = 2 * bounds_state.ema_sums(absolute_sums(start, seed), 10, len(seen), U)
    assert_within("sums", after.sums, unrolled.sums, bound)


def test_codes_are_those_of_the_paper_in_exact_fractions():
    start, seen, codes, _ = followed(0, EPSILON)
    decay, epsilon, size = Fraction(DECAY), Fraction(EPSILON), len(start)
    counts = [Fraction(1)] * size
    sums = [[Fraction(v) for v in row] for row in start]
    for tokens, indices in batches(0):
        for k in range(size):
            mine = tokens[indices == k]
            counts[k] = decay * counts[k] + (1 - decay) * len(mine)
            for j in range(3):
                sums[k][j] = decay * sums[k][j] + (1 - decay) * sum(map(Fraction, mine[:, j]))
    total = sum(counts)
    smooth = [(n + epsilon) / (total + size * epsilon) * total for n in counts]
    used = seen[-1].counts > 0
    expected = np.array([[float(v / n) for v in row] for row, n in zip(sums, smooth, strict=True)])
    absolute = absolute_sums(start, 0)
    bound = bounds_state.ema_codes(absolute, np.array([float(n) for n in smooth]), 10, len(seen), U)
    assert_within("codes", codes[used], expected[used], bound[used])


def test_smoothed_counts_keep_their_sum():
    counts = np.array([5.0, 0.0, 0.25, 100.0])
    smooth = ema.smoothed(counts, 0.5)
    assert smooth[1] > 0
    assert_within("sum", smooth.sum(), counts.sum(), bounds_state.ema_counts(counts.sum(), len(counts), U))


@given(st.integers(0, 2**16))
def test_without_smoothing_a_used_code_moves_onto_the_segment_to_its_mean(seed):
    rng = np.random.default_rng(seed)
    start, tokens = rng.normal(size=(2, 3)), rng.normal(size=(5, 3))
    batch = ema.of_batch(tokens, np.zeros(5, int), 2)
    after = ema.average(ema.placed(start, DECAY, 0.0), batch, DECAY)
    codes = ema.codes(start, after, batch, 0.0)
    share = (1 - DECAY) * 5 / (DECAY + (1 - DECAY) * 5)
    expected = start[0] + share * (tokens.mean(axis=0) - start[0])
    absolute = ema.average(
        ema.placed(np.abs(start), DECAY, 0.0), ema.of_batch(np.abs(tokens), np.zeros(5, int), 2), DECAY
    )
    bound = 2 * bounds_state.ema_codes(absolute.sums, after.counts, 5, 1, U)
    assert_within("code", codes[0], expected, bound[0])


def test_an_unused_code_stays_whatever_epsilon():
    start, _, codes, _ = followed(1, EPSILON)
    assert np.array_equal(codes[-1], start[-1])


def test_a_step_without_tokens_is_no_step():
    before = ema.placed(np.ones((2, 3)), DECAY, 0.0)
    assert ema.average(before, ema.of_batch(np.ones((4, 3)), np.full(4, -1), 2), DECAY) is before


@pytest.mark.parametrize("decay", [0.25, 0.5, 0.99, 0.9999, 1.0])
def test_a_placed_code_is_still_alive_after_an_unused_step(decay):
    threshold = 3.0
    placed = ema.placed(np.ones((2, 3)), decay, threshold)
    other = ema.of_batch(np.ones((4, 3)), np.ones(4, int), 2)
    assert ema.average(placed, other, decay).counts[0] >= threshold


def test_a_token_of_no_code_enters_no_statistic():
    tokens = np.array([[1.0], [np.nan]])
    batch = ema.of_batch(tokens, np.array([0, -1]), 1)
    assert batch.counts == 1
    assert batch.sums == 1


@pytest.mark.parametrize("decay", [0.0, -0.5, 1.5, float("nan")])
def test_a_decay_outside_its_range_is_named(decay):
    placed = ema.placed(np.ones((1, 1)), 0.5, 0.0)
    with pytest.raises(ValueError, match="decay is"):
        ema.average(placed, placed, decay)


def test_counts_and_sums_fade_by_the_decay_with_every_step():
    start = ema.Statistics(np.array([3.0]), np.array([[8.0]]))
    seen = [ema.Statistics(np.array([n]), np.array([[s]])) for n, s in [(2.0, 6.0), (4.0, -2.0)]]
    after = ema.unrolled(start, seen, 0.5)
    assert after.counts == 3 / 4 + 2 / 4 + 4 / 2
    assert after.sums == 8 / 4 + 6 / 4 - 2 / 2


def test_a_code_that_one_token_chose_moves_in_float64_whatever_it_was_before():
    batch = ema.Statistics(np.array([1.0, 0.0]), np.array([[4.0], [0.0]]))
    after = ema.Statistics(np.array([2.0, 2.0]), np.array([[1 / 3], [9.0]]))
    codes = ema.codes(np.array([[1.0], [5.0]], np.float32), after, batch, 0.0)
    assert codes.dtype == np.float64
    np.testing.assert_array_equal(codes, [[1 / 6], [5.0]])


def test_a_placed_code_counts_as_much_as_survives_two_unused_steps():
    placed = ema.placed(np.array([[1.0, -2.0]]), 0.25, 3.0)
    np.testing.assert_array_equal(placed.counts, [48])
    np.testing.assert_array_equal(placed.sums, [[48, -96]])


def test_a_threshold_and_an_epsilon_that_cannot_be_used_are_named():
    with pytest.raises(ValueError, match=r"^replace_below is -1\.0: expected"):
        ema.placed(np.ones((1, 1)), 0.5, -1.0)
    with pytest.raises(ValueError, match=r"^epsilon is -1\.0: expected"):
        ema.smoothed(np.ones(1), -1.0)
