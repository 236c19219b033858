"""What the answer does not depend on: mode, gradients asked for or not, layout of the input, an earlier call."""

import numpy as np
from hypothesis import strategies as st

from vq_reference.testing.interface.implementation import Call, Cotangent
from vq_reference.testing.interface.stateful import bare
from vq_reference.testing.interface.subjects import TRAINED, Case, NotApplicable, cotangents
from vq_reference.testing.laws.assertions import assert_within
from vq_reference.testing.laws.bounds import bounds
from vq_reference.testing.laws.expected.commitment_loss import arrived, loss_of
from vq_reference.testing.laws.expected.nearest import decided
from vq_reference.testing.laws.expected.same_answer import assert_nothing_is_shared, assert_same_answer
from vq_reference.testing.laws.expected.same_reply import assert_same_state
from vq_reference.testing.laws.law import law
from vq_reference.testing.laws.strategies.simvq_cases import cases, steps

USER = "what a user of any layer relies on"
CHOICE = {"indices"}
TRAINING = Call()
EVALUATING = Call(training=False)
TIMES = 6  # warm-up counters of layers that move count to three or four
without = st.sampled_from(["no_grad", "not asked"])
gradients = st.sampled_from(["asked", "no_grad", "not asked"])


@law(
    "call.no_grad",
    level="must",
    source=USER,
    needs=CHOICE,
    case=cases(),
    gradient=without,
)
def test_the_answer_does_not_depend_on_gradients_being_asked_for(implementation, case, gradient):
    """Output, indices and loss are the same under no_grad, and for an input that asks for no gradient."""
    layer = implementation.build(case.reference)
    assert_same_answer(implementation, case, layer(case.x), layer(case.x, how=Call(gradient=gradient)))


@law("call.repeated", level="must", source=USER, needs=CHOICE, case=cases())
def test_the_same_call_again_gives_the_same_answer(implementation, case):
    """Calling the layer again and again with the same input gives the same answer and gradient each time."""
    layer = implementation.build(case.reference)
    g = cotangents(case)
    first, *others = (layer(case.x, [Cotangent(g, 1.0)]) for _ in range(TIMES))
    for other in others:
        assert_same_answer(implementation, case, first, other)
    if not decided(implementation, case).all():
        return
    # the first call and the last: a gradient that changes in between is the last one's too
    u, q = implementation.precision.unit_roundoff, case.codes[first.indices]
    bound = 2 * bounds.estimator_gradient(case.x, q, g, case.reference.estimator, u)
    if first.loss is not None:
        closed = loss_of(implementation, case, first.indices)
        bound = bound + 2 * closed.at_x_bound + 2 * u * (np.abs(g) + np.abs(closed.at_x))
    before, after = (arrived(answer.gradients[0].x, g) for answer in (first, others[-1]))
    assert_within("gradient at x", after, before, bound)


def arrangements(count):
    """Return ways to arrange `count` tokens in leading dimensions, sizes all different where they can be."""
    pairs = [(n, count // n) for n in range(1, count + 1) if count % n == 0]
    return [(count,), *pairs, *((1, *pair) for pair in pairs)]


@law("call.leading", level="must", source=USER, needs=CHOICE | {"leading"}, case=cases(), data=st.data())
def test_leading_dimensions_do_not_matter(implementation, case, data):
    """Tokens give the same answer however they are arranged into leading dimensions, the loss included."""
    leading = data.draw(st.sampled_from(arrangements(len(case.x))), label="leading dimensions")
    layer = implementation.build(case.reference)
    assert_same_answer(implementation, case, layer(case.x), layer(case.x, how=Call(leading=leading)))


@law("call.strided", level="must", source=USER, needs=CHOICE | {"form"}, case=cases())
def test_the_memory_layout_of_the_input_does_not_matter(implementation, case):
    """A non-contiguous input gives the answer of a contiguous one."""
    layer = implementation.build(case.reference)
    assert_same_answer(implementation, case, layer(case.x), layer(case.x, how=Call(memory="strided")))


@law("call.expanded", level="must", source=USER, needs=CHOICE | {"form"}, case=cases(), count=st.integers(2, 5))
def test_an_expanded_input_gives_every_copy_the_same_answer(implementation, case, count):
    """One token expanded over a batch, sharing its memory, gives each copy the answer of that token."""
    copies = Case(case.reference, np.repeat(case.x[:1], count, axis=0))
    layer = implementation.build(case.reference)
    assert_same_answer(implementation, copies, layer(copies.x), layer(copies.x, how=Call(memory="expanded")))


@law("call.state", level="must", source=USER, needs={"state"}, case=cases(), training=st.booleans())
def test_a_call_changes_no_parameter_and_no_buffer(implementation, case, training):
    """Forward and backward leave every parameter and buffer as it was, but for those declared to change in training."""
    layer = implementation.build(case.reference)
    before = layer.state()
    layer(case.x, [Cotangent(cotangents(case), 1.0)], Call(training=training))
    after = layer.state()
    kept, left = (
        {
            name: values
            for name, values in state.items()
            # a cache that is declared to change may be filled in eval
            if bare(name) not in implementation.state_changes or not (training or name != bare(name))
        }
        for state in (before, after)
    )
    assert_same_state(kept, left)


@law("call.input", level="must", source=USER, needs=CHOICE, case=cases(), gradient=gradients, training=st.booleans())
def test_a_call_leaves_its_input_as_it_was(implementation, case, gradient, training):
    """A call does not write into its input, which the encoder's backward and the caller still need."""
    handed_in = case.x.copy()
    after = implementation.build(case.reference)(case.x, how=Call(training=training, gradient=gradient)).input
    if after is None:
        raise NotApplicable("its adapter shows no input that could have been written to")
    assert_within("input after the call", after, handed_in, 0.0)


@law("call.step", level="must", source=USER, needs=CHOICE | {"step"}, cases=steps(), evaluated=st.booleans())
def test_a_call_is_made_with_the_codes_as_they_are_now(implementation, cases, evaluated):
    """Once an optimizer has changed the codes, a call gives what a layer built with them gives: nothing is kept."""
    before, after = cases
    # between two validations there is a call in training, after which an optimizer steps
    mode = EVALUATING if evaluated and "eval" in implementation.capabilities else TRAINING
    expected = implementation.build(after.reference)(after.x, how=mode)
    layer = implementation.build(before.reference)
    layer(before.x, how=mode)
    layer(before.x)
    layer.step(after.reference)
    assert_same_answer(implementation, after, expected, layer(after.x, how=mode))


@law("call.aliased", level="must", source=USER, needs=CHOICE | {"state"}, case=cases())
def test_nothing_returned_shares_memory_with_the_layer(implementation, case):
    """Changing in place what a call returned changes neither the layer nor its next answer."""
    assert_nothing_is_shared(implementation, case, TRAINING)


EVAL = {"indices", "eval"}


@law("call.eval", level="must", source=USER, needs=EVAL, case=cases())
def test_eval_selects_and_outputs_the_codes_that_training_does(implementation, case):
    """In eval mode the layer selects the same codes and outputs them."""
    layer = implementation.build(case.reference)
    training, evaluating = layer(case.x), layer(case.x, how=EVALUATING)
    u = implementation.precision.unit_roundoff
    sure = decided(implementation, case)
    q = case.codes[training.indices]
    assert_within("selected code", case.codes[evaluating.indices][sure], q[sure], 0.0)
    bound = bounds.output(case.x, q, case.reference.estimator, u)
    if not any(f"estimator:{trained}" in implementation.capabilities for trained in TRAINED):
        # the unit code may be what is handed out: then both modes hand out that, each off by its own rounding
        q = training.output
        bound = 2 * bounds.output(case.x, q, case.reference.estimator, u)
    assert_within("output", evaluating.output[sure], q[sure], bound[sure])
