"""What the answer does not depend on: mode, gradients asked for or not, layout of the input, an earlier call."""

import numpy as np
from hypothesis import strategies as st

from vq_reference import cosine
from vq_reference.testing import bounds
from vq_reference.testing.adapters.implementation import Call, Cotangent
from vq_reference.testing.adapters.lasting import bare
from vq_reference.testing.choice import compared, decided
from vq_reference.testing.closed_forms import arrived, loss_of
from vq_reference.testing.law import law
from vq_reference.testing.measure import assert_one_of, assert_within
from vq_reference.testing.precision import INTEGERS
from vq_reference.testing.same_reply import assert_same_state
from vq_reference.testing.strategies import Case, NotApplicable, cases, cotangents, large_codebooks, steps

USER = "what a user of any layer relies on"
CHOICE = {"indices"}
TRAINING, EVALUATING = Call(), Call(training=False)
TIMES = 6  # warm-up counters of layers that move count to three or four

without = st.sampled_from(["no_grad", "not asked"])
gradients = st.sampled_from(["asked", "no_grad", "not asked"])


def assert_same_answer(implementation, case, first, second):
    """Two answers to the same question agree: the code exactly where it is decided, the output to rounding."""
    u = implementation.precision.unit_roundoff
    sure = decided(implementation, case)
    q = case.codes[first.indices]
    assert_within("selected code", case.codes[second.indices][sure], q[sure], 0.0)
    bound = 2 * bounds.output(case.x, q, case.reference.estimator, u)
    assert_within("output", second.output[sure], first.output[sure], bound[sure])
    if first.loss is not None and second.loss is not None and sure.all():
        rounding = 2 * bounds.mean_square(case.x.size, u) * abs(first.loss)
        assert_within("ℓ", second.loss, first.loss, rounding + of_directions(implementation, case, first.indices))


def of_directions(implementation, case, indices):
    """Bound on how far apart two losses are because directions are what they compare, 0 where none may be.

    A difference d of two directions, each computed with the error ε of `bounds.direction` in either call, is off by
    δ = 4ε from the one to the other, and its square by 2‖d‖δ + δ².
    """
    if implementation.metric == "euclidean":
        return 0.0
    x, codes = compared(implementation, case)
    lengths = np.linalg.norm(x - codes[indices], axis=1)
    off = 4 * bounds.direction(x.shape[1], implementation.precision.unit_roundoff)
    terms = x.size if implementation.loss_reduction == "mean" else 1
    return sum(implementation.loss_weights(case.reference)) * np.sum(2 * lengths * off + off**2) / terms


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


@law("eval.aliased", level="should", source=USER, needs=CHOICE | {"state", "eval"}, case=cases())
def test_nothing_returned_in_eval_shares_memory_with_the_layer(implementation, case):
    """In eval mode too, changing in place what a call returned changes neither the layer nor its next answer."""
    assert_nothing_is_shared(implementation, case, EVALUATING)


def assert_nothing_is_shared(implementation, case, how):
    """Overwrite an answer, and look at the layer and at its next answer."""
    layer = implementation.build(case.reference)
    first, before = layer(case.x, how=how), layer.state()
    layer.overwrite_returned()
    after = layer.state()
    for name in sorted(before):
        assert_within(f"{name}, once the answer is overwritten,", after[name], before[name], 0.0)
    assert_same_answer(implementation, case, first, layer(case.x, how=how))


@law(
    "decode.output",
    level="must",
    source=USER,
    needs=CHOICE | {"decode"},
    case=cases() | large_codebooks(),
    seed=st.integers(0, 15),
)
def test_decoding_the_indices_gives_the_output(implementation, case, seed):
    """Decoding the returned indices gives the codes that the layer output: transform and projections included."""
    u = implementation.precision.unit_roundoff
    codes = cosine.unit(case.codes) if implementation.unit_codes else case.codes
    layer = implementation.build(case.reference)
    returned = layer(case.x).indices
    # squares and cubes lie in leading dimensions of one size, where a transposed answer has the right shape
    generator = np.random.default_rng(seed)
    others = [generator.integers(0, len(case.codes), count) for count in (4, 9, 8, 12)]
    for indices in (returned, *others):
        frozen, transform = case.reference.frozen_codebook[indices], case.reference.transform
        bound = bounds.decoded(frozen, transform, u)
        if implementation.unit_codes:  # which have been divided by their length, when they were set or now
            lengths = np.linalg.norm(case.codes[indices], axis=1, keepdims=True)
            bound = bound / lengths + bounds.direction(codes.shape[1], u)
        assert_within("decoded", layer.decode(indices), codes[indices], bound)


@law("form.output", level="must", source=USER, needs={"form"}, case=cases())
def test_the_output_has_the_form_of_the_input(implementation, case):
    """The output has the shape of the input, or that of its declared layout, and the input's dtype and device."""
    form = implementation.build(case.reference)(case.x).form
    assert_one_of("shape of the output", form.output_shape, [form.output_expected])
    assert_one_of("dtype of the output", form.output_dtype, [implementation.precision.name])
    assert_one_of("output on the input's device", form.same_device, [True])


@law("form.indices", level="must", source=USER, needs={"form", "indices"}, case=cases() | large_codebooks())
def test_the_indices_are_integers_one_for_each_token(implementation, case):
    """The indices have the declared shape, and an integer dtype that holds the last index, K − 1."""
    form = implementation.build(case.reference)(case.x).form
    assert_one_of("shape of the indices", form.indices_shape, [form.indices_expected])
    last = len(case.codes) - 1
    wide = [dtype for dtype in INTEGERS if last <= np.iinfo(dtype).max]
    assert_one_of("dtype of the indices", form.indices_dtype, wide, f"an integer dtype that holds {last}")


@law("form.loss", level="must", source=USER, needs={"form", "loss"}, case=cases())
def test_the_loss_has_the_declared_shape_and_dtype(implementation, case):
    """The loss is a scalar of the dtype that is computed in, float32 where that is narrower, or as declared."""
    form = implementation.build(case.reference)(case.x).form
    assert_one_of("shape of the loss", form.loss_shape, [form.loss_expected])
    computed = implementation.precision.name
    usual = (computed, "float32") if computed in ("float16", "bfloat16") else (computed,)
    wanted = usual if implementation.loss_dtype is None else (implementation.loss_dtype,)
    assert_one_of("dtype of the loss", form.loss_dtype, wanted)
