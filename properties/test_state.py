"""State: what saving, copying and calling a layer do to it, and what they must leave alone."""

import numpy as np
from hypothesis import strategies as st

from vq_reference.testing.interface.stateful import Averaging, Use, Wanted
from vq_reference.testing.interface.subjects import NotApplicable, StackSubject, Subject, start
from vq_reference.testing.laws.assertions import assert_one_of, assert_within
from vq_reference.testing.laws.bounds import bounds_layer
from vq_reference.testing.laws.distributed import Training, alone, together
from vq_reference.testing.laws.expected.ema_step import assert_same_step
from vq_reference.testing.laws.expected.nearest_per_head import decided
from vq_reference.testing.laws.expected.residual_vq import assert_same_stack_reply, stack_as_it_is
from vq_reference.testing.laws.expected.same_reply import as_it_is, assert_same_reply, assert_same_state
from vq_reference.testing.laws.law import law
from vq_reference.testing.laws.strategies.stateful_cases import MOST, kept, subjects
from vq_reference.vector_quantize import VectorQuantize

USER = "what a user of torch.nn.Module relies on"
LASTING = {"lasting"}
KEPT = {"kept"}


def built(implementation, subject):
    return subject.build(implementation.lasting)


def assert_same_call(implementation, subject, first, second, training):
    """Call both, and raise LawBroken unless they reply alike."""
    u, begin, stacked = implementation.precision.unit_roundoff, subject.begin, isinstance(subject, StackSubject)
    oracle = stack_as_it_is(subject.wanted.stack, first) if stacked else as_it_is(subject.layer, first)
    one, other = (each(subject.x, begin, Use(training)) for each in (first, second))
    (assert_same_stack_reply if stacked else assert_same_reply)(oracle, subject.x, begin, one, other, u)


def assert_acts_as(implementation, subject, layer, carried):
    """Both have the same state, give the same reply, and have the same state after it."""
    assert_same_state(layer.state(), carried.state())
    for training in (False, True):
        assert_same_call(implementation, subject, layer, carried, training)
    assert_same_state(layer.state(), carried.state())


def require_copies(implementation, way):
    """Raise NotApplicable for a layer that cannot be copied, as torch has none of what is under its old weight_norm."""
    if way not in implementation.lasting.carry:
        raise NotApplicable("its module cannot be copied: copy.deepcopy raises once it has been called")


@law("state.loaded", level="must", source=USER, needs=KEPT, subject=kept(), steps=st.integers(0, 2))
def test_a_loaded_state_makes_a_layer_act_as_the_saved_one(implementation, subject, steps):
    """A state_dict, taken before or after training steps, makes a fresh layer act as the one that was saved."""
    layer, fresh = built(implementation, subject), built(implementation, subject.another())
    for _ in range(steps):
        layer(subject.x)
    assert_acts_as(implementation, subject, layer, implementation.lasting.carry["state_dict"](layer, fresh))


@law("state.loaded_over", level="must", source=USER, needs=KEPT, subject=kept(), training=st.booleans())
def test_a_loaded_state_leaves_nothing_of_a_layer_that_has_run(implementation, subject, training):
    """A state_dict loaded into a layer that has already run leaves nothing behind of what that layer had."""
    layer, run = built(implementation, subject), built(implementation, subject.another())
    for mode in (training, True, False):
        run(subject.x, use=Use(training=mode))
    assert_acts_as(implementation, subject, layer, implementation.lasting.carry["state_dict"](layer, run))


@law(
    "state.copied",
    level="must",
    source=USER,
    needs=KEPT,
    subject=kept(),
    way=st.sampled_from(["deepcopy", "pickle"]),
    steps=st.integers(0, 1),
)
def test_a_copy_acts_as_its_original(implementation, subject, way, steps):
    """A deep copy, or a layer that was pickled and read back, acts as the original."""
    layer = built(implementation, subject)
    for _ in range(steps):
        layer(subject.x)
    way = way if way in implementation.lasting.carry else "deepcopy"  # what holds a function of its own has no pickle
    require_copies(implementation, way)
    assert_acts_as(implementation, subject, layer, implementation.lasting.carry[way](layer, layer))


@law("state.copied_apart", level="must", source=USER, needs=KEPT, subject=kept(), runs=st.booleans())
def test_a_copy_shares_nothing_with_its_original(implementation, subject, runs):
    """Training a deep copy changes nothing of the original."""
    layer = built(implementation, subject)
    if runs:
        layer(subject.x)
    require_copies(implementation, "deepcopy")
    copy = implementation.lasting.carry["deepcopy"](layer, layer)
    before = layer.state()
    copy(subject.x, subject.begin)
    assert_same_state(before, layer.state())


@law("state.eval", level="must", source=USER, needs=KEPT, subject=kept(), with_grad=st.booleans())
def test_eval_changes_no_state(implementation, subject, with_grad):
    """A call in eval mode changes no parameter and no buffer, of moving averages either."""
    layer = built(implementation, subject)
    before = layer.state()
    layer(subject.x, use=Use(training=False, with_grad=with_grad))
    assert_same_state(before, layer.state())


@law("state.no_grad", level="must", source=USER, needs=KEPT | {"quiet_without_grad"}, subject=kept())
def test_without_gradients_no_state_moves(implementation, subject):
    """Under no_grad a call changes no parameter and no buffer, in training either, where that is declared."""
    layer = built(implementation, subject)
    before = layer.state()
    layer(subject.x, use=Use(with_grad=False))
    assert_same_state(before, layer.state())


@law(
    "state.checkpoint",
    level="should",
    source="torch.utils.checkpoint, with use_reentrant=True",
    needs=LASTING | {"checkpoint"},
    subject=subjects(),
)
def test_a_step_with_activation_checkpointing_is_one_step(implementation, subject):
    """With activation checkpointing, which runs a forward twice, the codes move once, and gradients are as without."""
    plain, checkpointed = built(implementation, subject), built(implementation, subject)
    before, begin, u = plain.statistics(), start(subject.x), implementation.precision.unit_roundoff
    first, second = plain(subject.x, begin), checkpointed(subject.x, begin, Use(checkpointed=True))
    assert_same_reply(subject.layer, subject.x, begin, first, second, u)
    assert_same_step(subject, before, subject.x, first.indices, plain, checkpointed, u)


@law("state.frozen_encoder", level="must", source=USER, needs=LASTING | {"ema"}, subject=subjects("ema"))
def test_codes_move_behind_an_encoder_that_is_frozen(implementation, subject):
    """A call in training moves averages by the same step, whether x asks for a gradient or an encoder is frozen."""
    asking, frozen = built(implementation, subject), built(implementation, subject)
    before, u = asking.statistics(), implementation.precision.unit_roundoff
    indices = asking(subject.x).indices
    frozen(subject.x, use=Use(asks=False))
    assert_same_step(subject, before, subject.x, indices, asking, frozen, u)


@law("state.history", level="must", source=USER, needs=KEPT, subject=kept(), data=st.data())
def test_a_reply_does_not_depend_on_earlier_calls_in_eval(implementation, subject, data):
    """What a layer replies does not depend on what it was called with before in eval mode."""
    layer, fresh = built(implementation, subject), built(implementation, subject)
    for _ in range(data.draw(st.integers(1, 2), label="calls before")):
        layer(-subject.x[::-1], use=Use(training=False))
    # in eval once more: what was kept there before a step of the codes is not what they are now
    for training in (data.draw(st.booleans(), label="training"), False):
        assert_same_call(implementation, subject, fresh, layer, training)
    assert_same_state(fresh.state(), layer.state())


@law("state.float64", level="should", source=USER, needs=LASTING | {"cast:float64"}, subject=subjects())
def test_a_layer_converted_to_float64_computes_in_float64(implementation, subject):
    """A layer converted to float64 has the same codes and computes with the accuracy of float64."""
    layer = implementation.lasting.cast(built(implementation, subject), "float64")
    begin, u = start(subject.x), np.finfo(np.float64).eps / 2
    oracle, reply = subject.layer, layer(subject.x, begin)
    assert_one_of("dtype of the output", reply.dtypes[0], ["float64"])
    # the oracle computes in float64 too, with errors of its own
    error = bounds_layer.vector_quantize(oracle, subject.x, begin.output, begin.losses[0], u)
    expected = oracle.forward(subject.x)
    assert_within("output", reply.output, expected.output, 2 * error.output)
    assert_within("ℓ", reply.losses, expected.loss, 2 * error.loss)
    gradients = oracle.gradients(subject.x, begin.output, begin.losses[0])
    at_x = np.zeros_like(subject.x) if reply.reached.x is None else reply.reached.x
    if implementation.lasting.straight_through:
        assert_within("gradient at x", at_x, gradients.x, 2 * error.x)


SOURCE = "training in parallel on shares of the batch, as torch's DistributedDataParallel does"
SIZE, WIDTH, TOKENS, STEPS = 6, 3, (8, 5), 3  # the last rank has fewer tokens
AVERAGING = {
    "plain": Averaging(0.5, 2.0**-10),
    "replace": Averaging(0.5, 0.0, 2.0),
    "initialise_from_data": Averaging(0.5, 2.0**-20, 0.0, True),
}


def training(averaging, u, steps=STEPS):
    """Return a layer, and tokens of which rounding decides for none at the codes that it begins with.

    The same ones in every run: to start the processes takes seconds, and each example would.
    """
    generator = np.random.default_rng(17)

    def grid(*shape):
        return generator.integers(-8 * MOST, 8 * MOST + 1, shape) / 8

    layer = VectorQuantize(grid(1, SIZE, WIDTH))
    drawn = [[grid(4 * count, WIDTH) for count in TOKENS] for _ in range(steps)]
    shares = [tuple(x[decided(layer, x, u)][:count] for x, count in zip(xs, TOKENS, strict=True)) for xs in drawn]
    return Training(Wanted(layer, averaging), shares)


def again(implementation):
    """Return what makes the implementation in another process."""
    if implementation.lasting.again is None:
        raise NotApplicable("it was made in this process alone: give it as a target, FILE.py:FUNCTION")
    return implementation.lasting.again


@law("state.ranks", level="must", source=SOURCE, needs={"ranks"})
def test_every_rank_holds_the_same_codes(implementation):
    """Processes that train together hold the same codes after every step, initialised and replaced ones too."""
    offered = [way for way in AVERAGING if way == "plain" or way in implementation.capabilities]
    u = implementation.precision.unit_roundoff
    first, second = together(again(implementation), [training(AVERAGING[way], u) for way in offered])
    for one, other in zip(first, second, strict=True):
        for here, there in zip(one, other, strict=True):
            assert_within("codes of the other rank", there.codes(), here.codes(), 0.0)
            for mine, its in zip(here.statistics(), there.statistics(), strict=True):
                assert_within("counts of the other rank", its.counts, mine.counts, 0.0)
                assert_within("sums of the other rank", its.sums, mine.sums, 0.0)


@law("state.ranks_equal_one", level="must", source=SOURCE, needs={"ranks", "ranks_equal_one"})
def test_ranks_are_one_process_with_the_whole_batch(implementation):
    """A step of processes that train together moves the codes as a step of one process with the tokens of all."""
    u = implementation.precision.unit_roundoff
    made = training(AVERAGING["plain"], u, steps=1)
    before = implementation.lasting.build(made.wanted).statistics()
    (apart,), _ = together(again(implementation), [made])
    (one,) = alone(implementation.lasting.build, made)
    x = np.concatenate(made.steps[0])
    assert_same_step(Subject(made.wanted, x), before, x, one.indices, one, apart[0], u)
