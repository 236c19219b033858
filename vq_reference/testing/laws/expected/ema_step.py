"""One step of a moving average, as the oracle takes it for the choices that an implementation made."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from vq_reference import ema
from vq_reference.arguments import Array
from vq_reference.ema import Statistics
from vq_reference.testing.interface.stateful import LastingLayer
from vq_reference.testing.interface.subjects import StackSubject, Subject
from vq_reference.testing.laws.assertions import assert_within
from vq_reference.testing.laws.bounds import bounds_state
from vq_reference.testing.laws.expected.nearest_per_head import heads_of, off
from vq_reference.testing.laws.expected.residual_vq import residuals, rounding, stack_as_it_is

FAR = 64.0


def with_a_far_code(subject: Subject, count: int = 1) -> Subject:
    """Return the subject with one code more in each codebook, which no token chooses, or with so many at one place."""
    groups, _, width = subject.layer.codes.shape
    codes = np.concatenate([subject.layer.codes, np.full((groups, count, width), FAR)], axis=1)
    layer = replace(subject.layer, codes=codes)
    return replace(subject, wanted=replace(subject.wanted, layer=layer))


@dataclass(frozen=True)
class Batch:
    """What one codebook was given in one step. absolute: with |t| for t. error: of the sums, (K, D)."""

    statistics: Statistics
    absolute: Statistics
    error: Array


def batches(subject: Subject, x: Array, indices: Array, u: float) -> list[Batch]:
    """Return what each of the G codebooks was given. x: (N, dim). indices: (N, H), those that were chosen."""
    layer = subject.layer
    heads, error = heads_of(layer, x), off(layer, x, u)
    groups, size, width = layer.codes.shape
    found = []
    for group in range(groups):
        its = slice(group, group + 1) if groups > 1 else slice(None)
        tokens, chosen = heads[:, its].reshape(-1, width), indices[:, its].reshape(-1)
        wide = np.repeat(error[:, its].reshape(-1, 1), width, axis=1)
        found.append(
            Batch(
                ema.of_batch(tokens, chosen, size),
                ema.of_batch(np.abs(tokens), chosen, size),
                ema.of_batch(wide, chosen, size).sums,
            )
        )
    return found


def one_step(subject: Subject | StackSubject, layer: LastingLayer, u: float) -> list[Batch]:
    """Call the layer once, in training; return what each of its codebooks was given."""
    if not isinstance(subject, StackSubject):
        return batches(subject, subject.x, layer(subject.x).indices, u)
    stack = stack_as_it_is(subject.wanted.stack, layer)
    indices = layer(subject.x).indices
    error, found = rounding(stack, subject.x, indices, u), []
    for left, chosen, codes in zip(residuals(stack, subject.x, indices), indices.T, stack.codes, strict=True):
        given = (ema.of_batch(each, chosen, len(codes)) for each in (left, np.abs(left), error))
        statistics, absolute, errors = given
        found.append(Batch(statistics, absolute, errors.sums))
    return found


def assert_same_step(
    subject: Subject,
    before: tuple[Statistics, ...],
    x: Array,
    indices: Array,
    first: LastingLayer,
    second: LastingLayer,
    u: float,
) -> None:
    """Raise LawBroken unless two layers moved alike: counts, sums and codes, up to twice what each may be off by.

    before: what both remembered. x, indices: the tokens that both were given, and their choices.
    """
    if subject.wanted.averaging is None:
        assert_within("codes", second.codes(), first.codes(), 0.0)
        return
    averaging = subject.wanted.averaging
    ends = zip(before, batches(subject, x, indices, u), first.statistics(), second.statistics(), strict=True)
    for group, (start, batch, one, other) in enumerate(ends):
        count = len(x) * subject.layer.heads
        counts = bounds_state.ema_counts(one.counts, 1, u)
        assert_within(f"counts of codebook {group}", other.counts, one.counts, 2 * counts)
        absolute = ema.average(Statistics(start.counts, np.abs(start.sums)), batch.absolute, averaging.decay)
        sums = bounds_state.ema_sums(absolute.sums, count, 1, u) + batch.error
        assert_within(f"sums of codebook {group}", other.sums, one.sums, 2 * sums)
        if not subject.layer.unit:
            used = batch.statistics.counts > 0
            smooth = ema.smoothed(one.counts, averaging.epsilon)[used]
            codes = bounds_state.ema_codes(absolute.sums[used], smooth, count, 1, u)
            codes += batch.error[used] / smooth[:, None]
            assert_within(
                f"codes of codebook {group}", second.codes()[group, used], first.codes()[group, used], 2 * codes
            )
