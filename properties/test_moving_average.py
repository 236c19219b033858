"""Codes that are moving averages: the closed form, and what follows from it for each code."""

import contextlib

import numpy as np
from hypothesis import assume
from hypothesis import strategies as st

from vq_reference import ema
from vq_reference.ema import Statistics
from vq_reference.testing import bounds_state
from vq_reference.testing.adapters.lasting import Averaging, Use, Wanted
from vq_reference.testing.choice_of_heads import heads_of
from vq_reference.testing.law import law
from vq_reference.testing.measure import LawBroken, assert_within
from vq_reference.testing.moving import FAR, batches, one_step, with_a_far_code
from vq_reference.testing.strategies import NotApplicable
from vq_reference.testing.strategies_lasting import MOST, MOST_CODES, constructed_averagings, kept, subjects
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


def hull(subject, codes, tokens):
    """Bound on a code that is an average of what stood at `codes` and `tokens`: the longest entry of either."""
    size = np.maximum(np.abs(codes), np.abs(tokens).max(axis=0, initial=0.0))
    return lambda u: bounds_state.ema_codes(size, np.ones(len(codes)), len(tokens), 1, u)


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


# so small that it is felt by codes without tokens alone, which it keeps from 0/0: layers without ε are judged alike
initialising = st.just(Averaging(0.5, 2.0**-20, 0.0, True))
replacing = st.sampled_from([1.0, 2.0]).map(lambda below: Averaging(0.5, 0.0, below))
DEAD = 8
ENOUGH = 8  # steps after which a count that nothing feeds has fallen below any threshold drawn here


def assert_in_the_box(codes, tokens, u, averaging, steps, output=None):
    """Raise LawBroken unless codes, and outputs, are averages of tokens: no entry lies outside of theirs.

    After T steps N_k ≥ γ^T, so that smoothing changes a count by a share of at most s = (K + 1)ε/γ^T,
    and a code by s/(1 − s). The output is a code: x + (q − x) is off it by less than 4u of the largest entry, which is
    a part of the bound on codes.
    """
    low, high = tokens.min(axis=0), tokens.max(axis=0)
    size = np.maximum(np.abs(low), np.abs(high))[None]
    share = (len(codes) + 1) * averaging.epsilon / averaging.decay**steps
    rounding = bounds_state.ema_codes(size, np.ones(len(codes)), len(tokens), steps, u)
    bound = (rounding + size * share / (1 - share)).max(axis=0)
    for what, values in {"codes": codes, **({} if output is None else {"output": output})}.items():
        assert_within(what, values, np.clip(np.nan_to_num(values, nan=np.inf), low, high), bound)


@law(
    "initialise.scale",
    level="must",
    source="codes taken from the first batch, as in k-means",
    needs=EMA | {"initialise_from_data"},
    subject=subjects("ema", "euclidean", "plain", initialising, tokens=(2, 6)),
    steps=st.integers(1, 3),
    evaluated=st.booleans(),
)
def test_codes_from_data_have_the_scale_of_the_data(implementation, subject, steps, evaluated):
    """Codes from data lie among the data, and so do outputs, also after the first updates and after a call in eval."""
    far, u = with_a_far_code(subject), implementation.precision.unit_roundoff
    layer = implementation.lasting.build(far.wanted)
    if evaluated:  # before there are any; a layer may well refuse that
        with contextlib.suppress(Exception):
            layer(far.x, use=Use(training=False))
    for step in range(steps):
        output = layer(far.x).output
        assert_in_the_box(layer.codes()[0], far.x, u, far.wanted.averaging, step + 1, output)


@law(
    "initialise.once",
    level="must",
    source="codes taken from the first batch",
    needs=EMA | {"initialise_from_data"},
    subject=subjects("ema", "euclidean", "plain", initialising, tokens=(2, 12)),
)
def test_codes_are_initialised_once(implementation, subject):
    """Only the first batch initialises: a later one moves a used code by no more than its step, and no unused one."""
    layer = implementation.lasting.build(subject.wanted)
    layer(subject.x)
    before = layer.codes()[0]
    elsewhere = subject.x[:1] + 8
    reply = layer(elsewhere)
    unused = np.arange(len(before)) != reply.indices[0, 0]
    bound = hull(subject, before, elsewhere)(implementation.precision.unit_roundoff)
    assert_within("unused codes", layer.codes()[0, unused], before[unused], bound[unused])


REPLACED = "dead codes are replaced by tokens, as in Jukebox, arXiv 2005.00341, §3.1"
KEPT = "a replaced code is given time to be chosen; Jukebox, arXiv 2005.00341, redraws it at every step until it is"
# with at least as many tokens as codes: Jukebox repeats fewer of them, and jitters the copies
replaced = subjects("ema", "euclidean", "plain", replacing, tokens=(MOST_CODES + 1, 12))
REPLACE = EMA | {"replace"}


def until_replaced(layer, x, mask=None, dead=1):
    """Call the layer until its last `dead` codes have moved, at most ENOUGH times; say whether they have."""
    for _ in range(ENOUGH):
        layer(x, mask=mask)
        # further away than any token: an average of unchanged sums may round
        if np.all(layer.codes()[:, -dead:] < FAR / 2):
            return True
    return False


@law(
    "replace.token",
    level="must",
    source=REPLACED,
    needs=REPLACE,
    subject=replaced,
)
def test_a_dead_code_is_replaced_by_a_token_of_the_batch(implementation, subject):
    """A code that no token has chosen for long is replaced, and by a token of the batch."""
    far = with_a_far_code(subject)
    layer = implementation.lasting.build(far.wanted)
    until_replaced(layer, far.x)
    assert_is_a_token(layer.codes()[0, -1], far.x)


def assert_is_a_token(code, tokens):
    nearest = np.abs(tokens - code).max(axis=1).argmin()
    assert_within("code in the dead one's place", code, tokens[nearest], 0.0)


@law(
    "replace.parts",
    level="must",
    source=REPLACED,
    needs=REPLACE,
    subject=subjects("ema", "euclidean", "any", replacing, tokens=(MOST_CODES + 1, 12)),
)
def test_with_heads_and_projections_a_dead_code_is_replaced_by_a_token_of_its_own_codebook(implementation, subject):
    """With heads and projections a dead code is replaced by a projected token, of a head that has its codebook."""
    if not {"heads", "projections"} & implementation.offers:
        raise NotApplicable(f"{implementation.name} offers neither heads nor projections")
    far, u = with_a_far_code(subject), implementation.precision.unit_roundoff
    tokens = heads_of(far.layer, far.x)
    # at least FAR/2 + MOST away from the far code along every axis, and no more from any other: no token chooses it
    assume(np.abs(tokens).max() <= FAR / 2 - MOST)
    layer = implementation.lasting.build(far.wanted)
    until_replaced(layer, far.x)
    placed = layer.codes()[:, -1]
    expected, bound = np.zeros_like(placed), np.zeros_like(placed)
    error = bounds_state.affine(far.layer.project_in, far.x, u).reshape(tokens.shape)
    for group, code in enumerate(placed):
        its = slice(group, group + 1) if len(placed) > 1 else slice(None)
        rows, off = (each[:, its].reshape(-1, len(code)) for each in (tokens, error))
        nearest = np.abs(rows - code).max(axis=1).argmin()
        expected[group], bound[group] = rows[nearest], off[nearest]
    assert_within("the replaced code", placed, expected, bound)


@law(
    "replace.distinct",
    level="should",
    source="codes that are one and the same share their tokens from then on, and only one of them is used",
    needs=REPLACE,
    subject=replaced,
)
def test_dead_codes_do_not_all_become_one_token(implementation, subject):
    """Eight dead codes, with sixteen distinct tokens to take, are not all replaced by one and the same.

    Each drawn by itself, all eight are alike with probability 16^-7, less than one in two hundred million.
    """
    far = with_a_far_code(subject, DEAD)
    # apart from one another, and from the far codes
    x = subject.x[:1] + np.arange(2 * DEAD)[:, None] / 8
    layer = implementation.lasting.build(far.wanted)
    if until_replaced(layer, x, dead=DEAD):
        several = len(np.unique(layer.codes()[0, -DEAD:], axis=0)) > 1
        assert_within(f"whether the last {DEAD} codes differ", several, 1.0, 0.0)


@law(
    "replace.stays",
    level="should",
    source=KEPT,
    needs=REPLACE,
    subject=replaced,
)
def test_a_replaced_code_is_still_there_one_step_later(implementation, subject):
    """A code that has just been replaced is still there one step later, or between there and its own tokens."""
    far = with_a_far_code(subject)
    layer = implementation.lasting.build(far.wanted)
    assert until_replaced(layer, far.x), f"the code is where it was after {ENOUGH} steps in which no token chose it"
    placed = layer.codes()[0, -1]
    x = far.x[::-1]  # another order, so that another token would be drawn
    own = x[layer(x).indices[:, 0] == len(far.layer.codes[0]) - 1]
    low, high = (bound(np.vstack([placed, own]), axis=0) for bound in (np.min, np.max))
    code, u = layer.codes()[0, -1], implementation.precision.unit_roundoff
    assert_within("the replaced code", code, np.clip(code, low, high), hull(far, placed[None], x)(u)[0])


@law(
    "replace.padding",
    level="must",
    source=REPLACED,
    needs=REPLACE | {"mask"},
    subject=replaced,
    padding=st.integers(1, 8),
)
def test_no_code_is_ever_a_padding_token(implementation, subject, padding):
    """A dead code is never replaced by padding."""
    far = with_a_far_code(subject)
    layer = implementation.lasting.build(far.wanted)
    x = np.concatenate([far.x, np.full((padding, far.x.shape[1]), -FAR)])
    if until_replaced(layer, x, np.arange(len(x)) < len(far.x)):
        assert_is_a_token(layer.codes()[0, -1], far.x)


@law(
    "initialise.padding",
    level="must",
    source="padding is no data",
    needs=EMA | {"initialise_from_data", "mask"},
    subject=subjects("ema", "euclidean", "plain", initialising, tokens=(2, 6)),
    padding=st.integers(1, 8),
)
def test_codes_are_never_initialised_from_padding(implementation, subject, padding):
    """Codes that are initialised from data are never taken from padding."""
    layer, alone = (implementation.lasting.build(with_a_far_code(subject).wanted) for _ in range(2))
    u, averaging = implementation.precision.unit_roundoff, subject.wanted.averaging
    alone(subject.x)
    try:
        assert_in_the_box(alone.codes()[0], subject.x, u, averaging, 1)
    except LawBroken:  # without padding too, as where a cluster has no tokens: initialise.scale says so
        return
    x = np.concatenate([subject.x, np.full((padding, subject.x.shape[1]), -FAR)])
    layer(x, mask=np.arange(len(x)) < len(subject.x))
    assert_in_the_box(layer.codes()[0], subject.x, u, averaging, 1)
