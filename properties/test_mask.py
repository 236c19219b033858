"""Masks: padding takes no part, whatever it holds, in the answer, in its gradients and in the state."""

import numpy as np
from hypothesis import strategies as st

from vq_reference.testing.interface.stateful import Use
from vq_reference.testing.interface.subjects import start
from vq_reference.testing.laws.assertions import assert_within
from vq_reference.testing.laws.expected.ema_step import assert_same_step
from vq_reference.testing.laws.expected.same_reply import assert_same_reply
from vq_reference.testing.laws.law import law
from vq_reference.testing.laws.strategies.stateful_cases import masks, subjects

USER = "padding is not data"
MASK = {"lasting", "mask"}
PADDING = {"lasting", "padding"}


def two(implementation, subject):
    return (implementation.lasting.build(subject.wanted) for _ in range(2))


def padded(reply, mask):
    """Return the reply with the tokens that count, and no other."""
    at = reply.reached
    reached = at if at.x is None else at._replace(x=at.x[mask])
    return reply._replace(output=reply.output[mask], indices=reply.indices[mask], reached=reached)


def batch_of_lengths(data, x):
    """Return the tokens of two padded sequences, the mask of those that count, and how lengths say it in a call."""
    rows = 2
    x = x[: len(x) // rows * rows]
    width = len(x) // rows
    lengths = np.array(data.draw(st.lists(st.integers(0, width), min_size=rows, max_size=rows), label="lengths"))
    lengths[0] = max(lengths[0], 1)
    mask = (np.arange(width) < lengths[:, None]).reshape(-1)
    return x, mask, {"use": Use(leading=(rows, width)), "lengths": lengths}


def padded_batch(implementation, data, x):
    """Return tokens, the mask of those that count, and how a call says it: by lengths where there is no mask."""
    if "mask" not in implementation.offers:
        return batch_of_lengths(data, x)
    mask = data.draw(masks(len(x)), label="mask")
    return x, mask, {"mask": mask}


@law("mask.all_true", level="must", source=USER, needs=MASK, subject=subjects())
def test_an_all_true_mask_is_no_mask(implementation, subject):
    """A mask that is True everywhere changes neither the answer nor a gradient nor the state."""
    u, begin = implementation.precision.unit_roundoff, start(subject.x)
    for training in (True, False):
        without, masked = two(implementation, subject)
        before = without.statistics()
        first = without(subject.x, begin, Use(training))
        second = masked(subject.x, begin, Use(training), mask=np.ones(len(subject.x), bool))
        assert_same_reply(subject.layer, subject.x, begin, first, second, u)
        assert_same_step(subject, before, subject.x, first.indices, without, masked, u)


CONTENT = {"zeros": 0.0, "huge": 2.0**30, "equal": 1.0}


def assert_content_does_not_matter(implementation, subject, data, content):
    x, mask, said = padded_batch(implementation, data, subject.x)
    other = np.where(mask[:, None], x, content)
    u, begin = implementation.precision.unit_roundoff, start(x)
    plain, changed = two(implementation, subject)
    before = plain.statistics()
    first, second = plain(x, begin, **said), changed(other, begin, **said)
    assert_same_reply(subject.layer, x, begin, first, second, u, mask)
    assert_same_step(subject, before, x[mask], first.indices[mask], plain, changed, u)


@law(
    "mask.content",
    level="must",
    source=USER,
    needs=PADDING,
    subject=subjects(tokens=(2, 12)),
    data=st.data(),
    content=st.sampled_from(sorted(CONTENT)),
)
def test_what_padding_holds_changes_nothing(implementation, subject, data, content):
    """What padding holds changes neither the answer at the tokens, nor the loss, nor a gradient, nor the state."""
    assert_content_does_not_matter(implementation, subject, data, CONTENT[content])


@law("mask.nan", level="should", source=USER, needs=PADDING, subject=subjects(tokens=(2, 12)), data=st.data())
def test_padding_may_hold_nan(implementation, subject, data):
    """Padding that holds NaN changes nothing either."""
    assert_content_does_not_matter(implementation, subject, data, np.nan)


@law("mask.tokens", level="must", source=USER, needs=PADDING, subject=subjects(tokens=(2, 12)), data=st.data())
def test_a_padded_batch_is_the_batch_of_its_tokens(implementation, subject, data):
    """Tokens give with padding what they give without: outputs, loss, gradients and the step of the codes."""
    x, mask, said = padded_batch(implementation, data, subject.x)
    u, begin, alone = implementation.precision.unit_roundoff, start(x), x[mask]
    unpadded, with_padding = two(implementation, subject)
    before = unpadded.statistics()
    of_tokens = begin._replace(output=begin.output[mask])
    first, second = unpadded(alone, of_tokens), with_padding(x, begin, **said)
    assert_same_reply(subject.layer, alone, of_tokens, first, padded(second, mask), u)
    assert_same_step(subject, before, alone, first.indices, unpadded, with_padding, u)


@law("mask.padding", level="must", source=USER, needs=PADDING, subject=subjects(tokens=(2, 12)), data=st.data())
def test_padding_comes_out_as_declared(implementation, subject, data):
    """Padding comes out as declared, with the declared index, and passes on no gradient but its own."""
    x, mask, said = padded_batch(implementation, data, subject.x)
    layer, declared, begin = implementation.lasting.build(subject.wanted), implementation.lasting, start(x)
    reply = layer(x, begin, **said)
    unchanged = declared.padded_output == "input"
    assert_within("output of padding", reply.output[~mask], x[~mask] if unchanged else 0.0, 0.0)
    if declared.padded_index is not None:
        assert_within("index of padding", reply.indices[~mask], declared.padded_index, 0.0)
    at_x = reply.reached.x
    assert at_x is not None, "no gradient path leads to x"
    assert_within("gradient at padding", at_x[~mask], begin.output[~mask] if unchanged else 0.0, 0.0)


@law("mask.nothing", level="should", source=USER, needs=MASK, subject=subjects(), training=st.booleans())
def test_a_mask_without_any_token_is_finite(implementation, subject, training):
    """With a mask that is False everywhere, output, loss, gradients and state are finite."""
    layer, begin = implementation.lasting.build(subject.wanted), start(subject.x)
    reply = layer(subject.x, begin, Use(training), mask=np.zeros(len(subject.x), bool))
    reached = {} if reply.reached is None else {"x": reply.reached.x, **reply.reached.parameters}
    gradients = {f"gradient at {name}": value for name, value in reached.items() if value is not None}
    found = {"output": reply.output, "losses": reply.losses, **gradients, **layer.state()}
    for name, value in found.items():
        assert_within(f"finite {name}", np.isfinite(value), 1.0, 0.0)


@law(
    "mask.lengths",
    level="must",
    source=USER,
    needs=MASK | {"lengths"},
    subject=subjects(tokens=(4, 12)),
    data=st.data(),
)
def test_lengths_are_a_mask(implementation, subject, data):
    """The lengths of padded sequences say what the mask says that is True up to them."""
    x, mask, said = batch_of_lengths(data, subject.x)
    u, begin = implementation.precision.unit_roundoff, start(x)
    masked, counted = two(implementation, subject)
    before = masked.statistics()
    first, second = masked(x, begin, said["use"], mask=mask), counted(x, begin, **said)
    assert_same_reply(subject.layer, x, begin, first, second, u, mask)
    assert_within("index of padding", second.indices[~mask], first.indices[~mask], 0.0)
    assert_same_step(subject, before, x[mask], first.indices[mask], masked, counted, u)
