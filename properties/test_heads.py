"""Heads, projections and the cosine metric: the formulas with all that surrounds the choice."""

import dataclasses

import numpy as np
from hypothesis import strategies as st

from vq_reference.testing.interface.stateful import Use
from vq_reference.testing.interface.subjects import NotApplicable, start
from vq_reference.testing.laws.assertions import assert_one_of, assert_within
from vq_reference.testing.laws.bounds import bounds, bounds_layer, bounds_state
from vq_reference.testing.laws.expected.nearest_per_head import codes_of, excesses, heads_of, off
from vq_reference.testing.laws.expected.residual_vq import where_codes_lie
from vq_reference.testing.laws.law import law
from vq_reference.testing.laws.strategies.stateful_cases import modes, subjects

SOURCE = "van den Oord et al., arXiv 1711.00937, eq. 1–3; Yu et al., arXiv 2110.04627, §3.2"
LASTING = {"lasting"}


def called(implementation, subject, use=Use()):
    """Return the reply, where its backward began, and the bounds on what the oracle says of both."""
    begin, u = start(subject.x), implementation.precision.unit_roundoff
    layer = implementation.lasting.build(subject.wanted)
    error = bounds_layer.vector_quantize(subject.layer, subject.x, begin.output, begin.losses[0], u)
    return layer, layer(subject.x, begin, use), begin, error


def require_straight_through(implementation):
    """Raise NotApplicable for a layer that declares other estimators alone: the bounds are of straight-through."""
    if not implementation.lasting.straight_through:
        raise NotApplicable(f"{implementation.name} declares no straight-through gradient")


@law("heads.nearest", level="must", source=SOURCE, needs=LASTING, subject=subjects(), training=modes())
def test_each_head_chooses_its_nearest_code(implementation, subject, training):
    """Each head chooses the nearest code of its own codebook, by the declared metric, behind the projection."""
    _, reply, _, _ = called(implementation, subject, Use(training))
    u = implementation.precision.unit_roundoff
    for head, (excess, bound) in enumerate(excesses(subject.layer, subject.x, reply.indices, u)):
        assert_within(f"excess of head {head}", excess, 0.0, bound)


@law(
    "heads.zero_code",
    level="should",
    source="a vector of length zero has no direction",
    needs=LASTING | {"cosine"},
    subject=subjects(metric="cosine"),
    training=modes(),
)
def test_with_the_cosine_metric_a_code_of_zero_is_chosen_where_every_other_points_away(
    implementation, subject, training
):
    """With the cosine metric a code of zero is chosen where every other points away, and not by a token along a code.

    Of c = t·ĉ, the largest of all other codes: by the cosine zero is chosen where c < 0, by the distance of directions
    where 2 − 2c > 1. Either is right, so that tokens are judged with c < 0 or c > 1/2 alone, by more than rounding.
    """
    zero = np.zeros((len(subject.layer.codes), 1, subject.layer.codes.shape[2]))
    layer = dataclasses.replace(subject.layer, codes=np.concatenate([subject.layer.codes, zero], axis=1))
    wanted = dataclasses.replace(subject.wanted, layer=layer)
    u = implementation.precision.unit_roundoff
    reply = implementation.lasting.build(wanted)(subject.x, use=Use(training))
    tokens, delta = heads_of(layer, subject.x), off(layer, subject.x, u)
    for head, (excess, bound) in enumerate(excesses(layer, subject.x, reply.indices, u)):
        codes, t = codes_of(layer, head), tokens[:, head]
        largest = (t @ codes[:-1].T).max(axis=1)
        # half of what two squares of distances, of 2 at most, are off by: most for a code along or against a token
        shift = delta[:, head] + bounds_state.unit(codes.shape[1], u)
        near = (bounds.excess_by_expansion(t, t, -t, u) + 8 * shift + 2 * shift**2) / 2
        judged = (largest < -near) | (largest > 0.5 + near)
        assert_within(f"excess of head {head}", np.where(judged, excess, 0.0), 0.0, bound)


@law("heads.output", level="must", source=SOURCE, needs=LASTING, subject=subjects(), training=modes())
def test_the_output_is_the_codes_of_all_heads_projected(implementation, subject, training):
    """The output is the codes of all heads side by side, through the projection out; unit codes for cosine."""
    require_straight_through(implementation)
    _, reply, _, error = called(implementation, subject, Use(training))
    q = subject.layer.forward(subject.x).output
    tokens = heads_of(subject.layer, subject.x)
    # x + (q − x) in place of q, then through the projection
    chosen = tokens.reshape(len(subject.x), -1)
    out = subject.layer.project_out
    weight = np.eye(chosen.shape[1]) if out is None else np.abs(out.weight)
    u = implementation.precision.unit_roundoff
    largest = max(np.abs(codes_of(subject.layer, h)).max() for h in range(subject.layer.heads))
    estimator = u * (1 + u) * (np.abs(chosen) + largest) + u * largest
    delta = np.repeat(off(subject.layer, subject.x, u), tokens.shape[2], axis=1)
    assert_within("output", reply.output, q, error.output + (estimator + u * delta) @ weight.T)


@law("heads.loss", level="must", source=SOURCE, needs=LASTING | {"any_loss"}, subject=subjects(), training=modes())
def test_the_loss_is_the_mean_over_heads(implementation, subject, training):
    """The loss is the mean over tokens, heads and their entries, in the space of the codes."""
    _, reply, _, error = called(implementation, subject, Use(training))
    there = training or implementation.lasting.loss_in_eval
    expected = subject.layer.forward(subject.x).loss if there else 0.0
    assert_within("ℓ", reply.losses, expected, error.loss)


@law("heads.gradient", level="must", source=SOURCE, needs=LASTING, subject=subjects())
def test_the_gradient_goes_back_through_heads_metric_and_projections(implementation, subject):
    """Output and loss send to x the gradient of the formula: through the projections and the direction of each head."""
    require_straight_through(implementation)
    _, reply, begin, error = called(implementation, subject)
    expected = subject.layer.gradients(subject.x, begin.output, begin.losses[0])
    at_x = np.zeros_like(subject.x) if reply.reached.x is None else reply.reached.x
    assert_within("gradient at x", at_x, expected.x, error.x)


@law(
    "heads.parameters",
    level="must",
    source=SOURCE + "; a frozen encoder's output asks for no gradient",
    needs=LASTING,
    subject=subjects(),
    asks=st.booleans(),
)
def test_projections_and_codes_get_their_gradients_whether_or_not_the_input_asks_for_one(implementation, subject, asks):
    """Output and loss send projections and trained codes the gradient of the formula, behind a frozen encoder too."""
    require_straight_through(implementation)
    if "weight_norm" in implementation.offers or implementation.sync_nu:
        raise NotApplicable("its projections are made of other parameters, or its output trains the codes on purpose")
    layer, begin, u = subject.layer, start(subject.x), implementation.precision.unit_roundoff
    made = implementation.lasting.build(subject.wanted)
    state = made.state()
    reached = made(subject.x, begin, Use(asks=asks)).reached.parameters
    expected = layer.gradients(subject.x, begin.output, begin.losses[0])
    heads = bounds_layer.heads_of(layer, subject.x, u)
    at_hidden, error = bounds_layer.hidden_gradient(layer, heads, begin.output, begin.losses[0], u)
    at_weights = bounds_layer.weights_gradient(heads, subject.x, at_hidden, error, begin.output, u)
    for side, at_weight in zip(("project_in", "project_out"), at_weights, strict=True):
        affine, gradient = getattr(layer, side), getattr(expected, side)
        if affine is not None:
            for part, bound in (("weight", at_weight[:, :-1]), ("bias", at_weight[:, -1])):
                name = name_of(state, getattr(affine, part))
                assert_gradient(name, reached, state, getattr(gradient, part), bound)
    if layer.trained:
        bound = bounds_layer.codes_gradient(layer, heads, begin.losses[0], u)
        for name, lies in where_codes_lie(state, layer.codes).items():
            for group, cut in lies.items():
                found = np.zeros_like(state[name]) if reached.get(name) is None else reached[name]
                assert_within(f"gradient at {name}", cut(found), expected.codes[group], bound[group])


def name_of(state, values):
    """Return the name of the parameter that holds these values, of several that with the fewest axes of one entry."""
    shape = values.shape
    alike = [name for name, each in state.items() if each.shape[: values.ndim] == shape and each.size == values.size]
    found = [name for name in alike if np.array_equal(state[name].reshape(shape), values)]
    if not found:
        raise NotApplicable("its projections are no parameters, but made of some")
    return min(found, key=lambda name: state[name].ndim)


def assert_gradient(name, reached, state, expected, bound):
    arrived, shape = reached.get(name), state[name].shape
    actual = np.zeros(shape) if arrived is None else arrived
    assert_within(f"gradient at {name}", actual, expected.reshape(shape), bound.reshape(shape))


@law("heads.decode", level="must", source=SOURCE, needs=LASTING | {"any_decode"}, subject=subjects())
def test_decoding_gives_the_output_of_eval(implementation, subject):
    """Decoding the indices gives the output that the layer gives in eval mode, in its shape."""
    layer, reply, _, error = called(implementation, subject, Use(training=False))
    u = implementation.precision.unit_roundoff
    size = np.abs(subject.x) + np.abs(reply.output) if subject.layer.project_out is None else 0.0
    expected, decoded = subject.layer.forward(subject.x).output, layer.decode(reply.indices)
    assert_one_of("shape of what is decoded", decoded.shape, [expected.shape])
    assert_within("decoded", decoded, expected, error.output + u * size)


@law(
    "heads.independent",
    level="must",
    source="a head acts on its own part",
    needs=LASTING | {"heads"},
    subject=subjects(parts="heads"),
    data=st.data(),
)
def test_a_head_does_not_see_the_others(implementation, subject, data):
    """With heads cut from the channels, what one head holds changes no index of another."""
    layer = dataclasses.replace(subject.layer, project_in=None, project_out=None)
    wanted = dataclasses.replace(subject.wanted, layer=layer)
    width = layer.codes.shape[2]
    x = np.resize(subject.x, (len(subject.x), layer.heads * width))
    head = data.draw(st.integers(0, layer.heads - 1), label="head that changes")
    changed = x.copy()
    changed[:, head * width : (head + 1) * width] += 2.5
    others = np.arange(layer.heads) != head
    # a fresh layer each time: the first call of a moving average moves the codes
    first, second = (implementation.lasting.build(wanted)(each, use=Use(training=False)) for each in (x, changed))
    assert_within("indices of the other heads", second.indices[:, others], first.indices[:, others], 0.0)
