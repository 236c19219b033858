"""Residual stacks: the sum of the layers' codes, and the declared flow of gradients through the residuals."""

import numpy as np
from hypothesis import assume
from hypothesis import strategies as st

from vq_reference import loss, nearest
from vq_reference.testing.interface.stateful import Start, Use
from vq_reference.testing.interface.subjects import start
from vq_reference.testing.laws.assertions import assert_one_of, assert_within
from vq_reference.testing.laws.bounds import bounds, bounds_state
from vq_reference.testing.laws.expected.residual_vq import codes_at, losses, residuals, rounding, where_codes_lie
from vq_reference.testing.laws.law import law
from vq_reference.testing.laws.strategies.stateful_cases import projected_stacks, stack_subjects

SOURCE = "Zeghidour et al., SoundStream, arXiv 2107.03312, §III-C"
STACK = {"stack"}


def called(implementation, subject, use=Use(), begin=None):
    layer = implementation.lasting.build_stack(subject.wanted)
    return layer, layer(subject.x, begin, use), implementation.precision.unit_roundoff


@law("stack.sum", level="must", source=SOURCE, needs=STACK, subject=stack_subjects(), training=st.booleans())
def test_the_output_is_the_sum_of_the_layers_codes(implementation, subject, training):
    """The output of a residual stack is the sum of the codes at its layers' indices, in training and in eval."""
    _, reply, u = called(implementation, subject, Use(training))
    expected = sum(codes_at(subject.wanted.stack, reply.indices))
    assert_within("output", reply.output, expected, rounding(subject.wanted.stack, subject.x, reply.indices, u))


@law("stack.nearest", level="must", source=SOURCE, needs=STACK, subject=stack_subjects(), training=st.booleans())
def test_each_layer_chooses_the_nearest_code_to_its_residual(implementation, subject, training):
    """Each layer chooses the code nearest to what the layers before it left."""
    _, reply, u = called(implementation, subject, Use(training))
    off = np.linalg.norm(rounding(subject.wanted.stack, subject.x, reply.indices, u), axis=1)
    stack = subject.wanted.stack
    for i, (residual, codes) in enumerate(
        zip(residuals(subject.wanted.stack, subject.x, reply.indices), stack.codes, strict=True)
    ):
        distances = nearest.distances(residual, codes)
        best, chosen = distances.argmin(axis=1), reply.indices[:, i]
        mine, least = distances[np.arange(len(off)), chosen], distances.min(axis=1)
        bound = bounds.excess_by_expansion(residual, codes[chosen], codes[best], u)
        assert_within(f"excess of layer {i}", mine**2 - least**2, 0.0, bound + 2 * off * (mine + least) + 2 * off**2)


@law("stack.losses", level="must", source=SOURCE, needs=STACK, subject=stack_subjects())
def test_each_layer_has_the_loss_of_its_residual(implementation, subject):
    """The loss of each layer is the commitment loss between its residual and its code."""
    _, reply, u = called(implementation, subject)
    stack = subject.wanted.stack
    assert_one_of("number of losses", len(reply.losses), [len(stack.codes)])
    for i, (expected, bound) in enumerate(losses(stack, subject.x, reply.indices, u)):
        assert_within(f"loss of layer {i}", reply.losses[i], expected, bound)


@law("stack.gain", level="must", source=SOURCE, needs=STACK, subject=stack_subjects())
def test_the_stack_has_the_declared_gain(implementation, subject):
    """The Jacobian of a straight-through stack is I, or as many times I as declared, and not I for every layer."""
    layers, dim = len(subject.wanted.stack.codes), subject.x.shape[1]
    u = implementation.precision.unit_roundoff
    jacobian = np.zeros((len(subject.x), dim, dim))
    for row in range(dim):
        g = np.zeros_like(subject.x)
        g[:, row] = 1.0
        _, reply, _ = called(implementation, subject, begin=Start(g, [0.0] * layers))
        if reply.reached.x is not None:
            jacobian[:, row] = reply.reached.x
    expected = implementation.lasting.stack_gain(layers) * np.eye(dim)
    assert_within("∂output/∂x", jacobian, expected, bounds.gamma(2 * layers, u) * layers)


@law("stack.flow", level="must", source=SOURCE, needs=STACK, subject=stack_subjects(), data=st.data())
def test_each_layers_commitment_reaches_the_input_as_declared(implementation, subject, data):
    """The loss of layer i pulls x by w·β·2(r_i − q_i)/(N·D), where codes are constants in the residuals."""
    stack = subject.wanted.stack
    layer = data.draw(st.integers(0, len(stack.codes) - 1), label="layer whose loss is followed")
    starts = [float(i == layer) for i in range(len(stack.codes))]
    _, reply, u = called(implementation, subject, begin=Start(np.zeros_like(subject.x), starts))
    r, q = (
        residuals(subject.wanted.stack, subject.x, reply.indices)[layer],
        codes_at(subject.wanted.stack, reply.indices)[layer],
    )
    expected, _ = loss.vjp(r, q, 1.0, stack.beta, stack.commitment_weight)
    if implementation.lasting.flow == "none" and layer > 0:
        expected = np.zeros_like(expected)
    per_entry = 2 * stack.commitment_weight * stack.beta / r.size
    bound = bounds.loss_gradient(expected, u) + per_entry * rounding(subject.wanted.stack, subject.x, reply.indices, u)
    at_x = np.zeros_like(subject.x) if reply.reached.x is None else reply.reached.x
    assert_within(f"gradient of loss {layer} at x", at_x, expected, bound)


@law(
    "stack.codes",
    level="must",
    source=SOURCE + ": each layer is trained on its own residual",
    needs=STACK | {"stack:trained"},
    subject=stack_subjects(),
    data=st.data(),
)
def test_each_layers_loss_trains_its_own_codes_and_no_others(implementation, subject, data):
    """The loss of layer i pulls its own codes by w·2(q_i − r_i)/(N·D), and no other layer's; the output pulls none."""
    stack = subject.wanted.stack
    assume(stack.trained)
    layer = data.draw(st.integers(0, len(stack.codes) - 1), label="layer whose loss is followed")
    starts = [float(i == layer) for i in range(len(stack.codes))]
    made, reply, u = called(implementation, subject, begin=start(subject.x, starts))
    r, q = residuals(stack, subject.x, reply.indices)[layer], codes_at(stack, reply.indices)[layer]
    _, at_q = loss.vjp(r, q, 1.0, stack.beta, stack.commitment_weight)
    sums = bounds.gamma(len(r) + 8, u) * (np.abs(r) + np.abs(q)) + rounding(stack, subject.x, reply.indices, u)
    off = 2 * stack.commitment_weight / r.size * sums
    for name, lies in where_codes_lie(made.state(), stack.codes).items():
        arrived = reply.reached.parameters.get(name)
        shape = made.state()[name].shape
        expected, bound = np.zeros(shape), np.zeros(shape)
        if layer in lies:
            for whole, entries in ((expected, at_q), (bound, off)):
                lies[layer](whole)[...] = nearest.gather_vjp(reply.indices[:, layer], entries, len(stack.codes[layer]))
        assert_within(f"gradient at {name}", np.zeros(shape) if arrived is None else arrived, expected, bound)


@law("stack.decode", level="must", source=SOURCE, needs=STACK | {"decode"}, subject=stack_subjects(layers=(2, 3)))
def test_decoding_a_stack_sums_the_codes(implementation, subject):
    """Decoding the indices of a stack gives the sum of its layers' codes."""
    layer, reply, u = called(implementation, subject, Use(training=False))
    expected, decoded = sum(codes_at(subject.wanted.stack, reply.indices)), layer.decode(reply.indices)
    assert_one_of("shape of what is decoded", decoded.shape, [expected.shape])
    assert_within("decoded", decoded, expected, rounding(subject.wanted.stack, subject.x, reply.indices, u))


@law(
    "stack.projections",
    level="must",
    source=SOURCE + "; Yu et al., arXiv 2110.04627, §3.2",
    needs=STACK | {"stack:projections", "decode"},
    subject=projected_stacks(),
    training=st.booleans(),
)
def test_a_stack_has_its_estimator_between_its_projections(implementation, subject, training):
    """Output and decoded indices are the projected sum of codes, and the gradient goes back through both projections.

    The gradient is g W_out W_in: each term passes a sum over the output's width, the estimators, two roundings for each
    of L, and a sum over D.
    """
    stack, entering, leaving = subject.wanted.stack, subject.wanted.project_in, subject.wanted.project_out
    begin = start(subject.x, [0.0] * len(stack.codes))
    layer, reply, u = called(implementation, subject, Use(training), begin)
    hidden = subject.x @ entering.weight.T + entering.bias
    q = sum(codes_at(stack, reply.indices))
    expected = q @ leaving.weight.T + leaving.bias
    # of Σq, and what becomes of it in the projection: a term of W_out passes a sum of D and the bias
    off = rounding(stack, hidden, reply.indices, u) @ np.abs(leaving.weight).T
    bound = bounds_state.affine(leaving, q, u) + off * (1 + bounds.gamma(q.shape[1] + 1, u))
    assert_within("output", reply.output, expected, bound)
    gain = implementation.lasting.stack_gain(len(stack.codes))
    at_x = gain * begin.output @ leaving.weight @ entering.weight
    size = gain * np.abs(begin.output) @ np.abs(leaving.weight) @ np.abs(entering.weight)
    roundings = sum(leaving.weight.shape) + 2 * len(stack.codes)
    arrived = np.zeros_like(at_x) if reply.reached.x is None else reply.reached.x
    assert_within("gradient at x", arrived, at_x, bounds.gamma(roundings, u) * size)
    decoded = layer.decode(reply.indices)
    assert_one_of("shape of what is decoded", decoded.shape, [expected.shape])
    assert_within("decoded", decoded, expected, bound)


@law("stack.eval", level="must", source=SOURCE, needs=STACK, subject=stack_subjects(), with_grad=st.booleans())
def test_a_stack_replies_in_eval_as_in_training(implementation, subject, with_grad):
    """Without dropout, and with codes that no average moves, a stack replies in eval as in training."""
    _, first, u = called(implementation, subject, begin=start(subject.x, [1.0] * len(subject.wanted.stack.codes)))
    _, second, _ = called(implementation, subject, Use(training=False, with_grad=with_grad))
    if implementation.lasting.loss_in_eval:
        for i, (_, bound) in enumerate(losses(subject.wanted.stack, subject.x, first.indices, u)):
            assert_within(f"loss of layer {i}", second.losses[i], first.losses[i], 2 * bound)
    assert_within("indices", second.indices, first.indices, 0.0)
    assert_within(
        "output", second.output, first.output, 2 * rounding(subject.wanted.stack, subject.x, first.indices, u)
    )


@law(
    "stack.dropout",
    level="must",
    source=SOURCE + ": quantizer dropout",
    needs=STACK | {"layer_dropout"},
    subject=stack_subjects(layers=(2, 3), layer_dropout=True),
    training=st.booleans(),
)
def test_dropping_layers_keeps_every_shape(implementation, subject, training):
    """A stack that drops layers returns what it returns without: shapes, and a sum over the layers that it kept."""
    layers, count = len(subject.wanted.stack.codes), len(subject.x)
    layer = implementation.lasting.build_stack(subject.wanted)
    for _ in range(2):
        reply = layer(subject.x, use=Use(training, leading=(1, count)))
        expected = ((1, count, subject.x.shape[1]), (1, count, layers), (layers,))
        assert_one_of("shape of output, indices and losses", reply.shapes, [expected])
        u = implementation.precision.unit_roundoff
        bound = rounding(subject.wanted.stack, subject.x, reply.indices, u)
        assert_within("output", reply.output, sum(codes_at(subject.wanted.stack, reply.indices)), bound)
        dropped = (reply.indices < 0).all(axis=0)
        assert_within("losses of dropped layers", reply.losses[dropped], 0.0, 0.0)
        assert_one_of("number of dropped layers", int(dropped.sum()), range(layers + 1) if training else [0])
