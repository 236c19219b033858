"""Dead codes that are replaced by tokens: of the batch, not all by one, and not at every step."""

import numpy as np
from hypothesis import assume
from hypothesis import strategies as st

from vq_reference.testing.interface.stateful import Averaging
from vq_reference.testing.interface.subjects import NotApplicable
from vq_reference.testing.laws.assertions import assert_within
from vq_reference.testing.laws.bounds import bounds_state
from vq_reference.testing.laws.expected.ema_step import FAR, with_a_far_code
from vq_reference.testing.laws.expected.hull import hull
from vq_reference.testing.laws.expected.nearest_per_head import heads_of
from vq_reference.testing.laws.law import law
from vq_reference.testing.laws.strategies.stateful_cases import MOST, MOST_CODES, subjects

EMA = {"lasting", "ema"}
unsmoothed = st.sampled_from([0.5, 0.875]).map(Averaging)
plain = subjects("ema", "euclidean", "plain", unsmoothed)
replacing = st.sampled_from([1.0, 2.0]).map(lambda below: Averaging(0.5, 0.0, below))
DEAD = 8
ENOUGH = 8  # steps after which a count that nothing feeds has fallen below any threshold drawn here
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
