"""The EMA codebook against its oracle, and against what must be true of any codebook that follows its tokens."""

import copy

import numpy as np
import pytest
import torch
from torch.utils.checkpoint import checkpoint

from vq_reference import ema
from vq_reference.nn import EMACodebook, VectorQuantize
from vq_reference.testing.laws.assertions import assert_within
from vq_reference.testing.laws.bounds import bounds_state
from vq_reference.testing.laws.bounds.bounds import gamma

DTYPES = {torch.float32: 2.0**-24, torch.float64: 2.0**-53}
SIZE, DIM, COUNT, STEPS = 4, 3, 7, 6


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


def numpy(tensor):
    return tensor.detach().double().numpy().copy()  # a copy: the state that it came from moves on


def batch(dtype=torch.float32, used=SIZE):
    return torch.randn(COUNT, DIM).to(dtype), torch.randint(0, used, (COUNT,))


@pytest.mark.parametrize("decay", [0.5, 0.99, 1.0])
@pytest.mark.parametrize("epsilon", [0.0, 1e-5, 0.5])
@pytest.mark.parametrize("dtype", DTYPES)
def test_several_steps_are_the_closed_form(dtype, epsilon, decay):
    codebook = EMACodebook(SIZE, DIM, decay, epsilon).to(dtype)
    start, seen, absolute = numpy(codebook.codes), [], []
    codes = start.copy()
    codebook.place(torch.as_tensor(start))
    placed, unit_roundoff = ema.placed(start, decay, 0.0), DTYPES[dtype]
    for step in range(1, STEPS + 1):
        tokens, indices = batch(dtype, used=SIZE - 1)
        codebook.update(tokens, indices)
        seen.append(ema.of_batch(numpy(tokens), indices.numpy(), SIZE))
        absolute.append(ema.of_batch(np.abs(numpy(tokens)), indices.numpy(), SIZE))
        after = ema.unrolled(placed, seen, decay)
        codes = ema.codes(codes, after, seen[-1], epsilon)
        most = ema.unrolled(ema.placed(np.abs(start), decay, 0.0), absolute, decay).sums
        smooth = ema.smoothed(after.counts, epsilon)
        counts_bound = bounds_state.ema_counts(after.counts, step, unit_roundoff)
        assert_within("counts", numpy(codebook.counts), after.counts, counts_bound)
        sums_bound = bounds_state.ema_sums(most, COUNT, step, unit_roundoff)
        assert_within("sums", numpy(codebook.sums), after.sums, sums_bound)
        moved = seen[-1].counts > 0
        codes_bound = bounds_state.ema_codes(most, smooth, COUNT, step, unit_roundoff)
        assert_within("codes", numpy(codebook.codes)[moved], codes[moved], codes_bound[moved])


def test_without_smoothing_a_code_at_its_own_tokens_mean_stays():
    codebook = EMACodebook(SIZE, DIM, decay=0.75, epsilon=0.0).double()
    tokens, indices = batch(torch.float64)
    counts = torch.bincount(indices, minlength=SIZE)
    mean = torch.zeros(SIZE, DIM).double().index_add(0, indices, tokens) / counts.clamp(min=1)[:, None]
    codebook.place(mean)
    codebook.update(tokens, indices)
    absolute = ema.average(
        ema.placed(np.abs(numpy(mean)), 0.75, 0.0), ema.of_batch(np.abs(numpy(tokens)), indices.numpy(), SIZE), 0.75
    )
    own_mean = gamma(COUNT + 1, 2.0**-53) * absolute.sums / absolute.counts[:, None]
    bound = bounds_state.ema_codes(absolute.sums, absolute.counts, COUNT, 1, 2.0**-53) + own_mean
    assert_within("codes", numpy(codebook.codes), numpy(mean), bound)


def test_without_smoothing_a_used_code_moves_onto_the_segment_to_its_tokens_mean():
    codebook = EMACodebook(SIZE, DIM, decay=0.75, epsilon=0.0).double()
    before, tokens = numpy(codebook.codes), torch.randn(COUNT, DIM).double()
    codebook.place(codebook.codes.clone())
    codebook.update(tokens, torch.zeros(COUNT, dtype=torch.int64))
    share = 0.25 * COUNT / (0.75 + 0.25 * COUNT)
    expected = before[0] + share * (numpy(tokens).mean(axis=0) - before[0])
    zeros = np.zeros(COUNT, int)
    absolute = ema.average(
        ema.placed(np.abs(before), 0.75, 0.0), ema.of_batch(np.abs(numpy(tokens)), zeros, SIZE), 0.75
    )
    bound = 2 * bounds_state.ema_codes(absolute.sums, absolute.counts, COUNT, 1, 2.0**-53)
    assert_within("code", numpy(codebook.codes)[0], expected, bound[0])


def test_an_unused_code_stays_for_ever():
    codebook = EMACodebook(SIZE, DIM, decay=0.5, epsilon=1e-5)
    before = codebook.codes.clone()
    for _ in range(200):  # by then 0.5^200 has underflowed in float32
        codebook.update(*batch(used=SIZE - 1))
    assert codebook.counts[-1] == 0
    assert torch.equal(codebook.codes[-1], before[-1])
    codebook.update(*batch())
    assert codebook.codes.isfinite().all()


def test_a_step_without_tokens_changes_nothing():
    codebook = EMACodebook(SIZE, DIM, replace_below=2.0)
    before = {name: value.clone() for name, value in codebook.state_dict().items()}
    codebook.update(torch.full((COUNT, DIM), torch.nan), torch.full((COUNT,), -1))
    codebook.update(torch.zeros(0, DIM), torch.zeros(0, dtype=torch.int64))
    assert all(torch.equal(value, before[name]) for name, value in codebook.state_dict().items())


@pytest.mark.parametrize("decay", [0.3, 0.99])
def test_a_replaced_code_is_a_token_that_is_there_and_still_there_one_step_later(decay):
    codebook = EMACodebook(SIZE, DIM, decay, replace_below=1.5)
    codebook.counts[1:] = 1e-3
    tokens, indices = torch.randn(COUNT, DIM), torch.zeros(COUNT, dtype=torch.int64)
    indices[-3:], tokens[-3:] = -1, 7.0
    codebook.update(tokens, indices)
    replaced = codebook.codes[1:].clone()
    found = (replaced[:, None] == tokens[None, :-3]).all(dim=-1)
    assert found.any(dim=1).all()
    assert len(found.int().argmax(dim=1).unique()) == SIZE - 1, "no token twice while there are enough"
    codebook.update(torch.randn(COUNT, DIM), torch.zeros(COUNT, dtype=torch.int64))
    assert torch.equal(codebook.codes[1:], replaced)
    assert (codebook.counts >= 1.5).all()


def test_a_replaced_code_that_is_used_next_moves_onto_the_segment_to_its_tokens():
    codebook = EMACodebook(SIZE, DIM, decay=0.5, epsilon=0.0, replace_below=1.0).double()
    codebook.counts[1] = 0
    tokens = torch.randn(COUNT, DIM).double()
    codebook.update(tokens, torch.tensor([0, 0, 0, 2, 2, 3, 3]))
    placed, fresh = numpy(codebook.codes[1]), float(codebook.counts[1])
    mine = torch.randn(2, DIM).double()
    codebook.update(mine, torch.ones(2, dtype=torch.int64))
    expected = (0.5 * fresh * placed + 0.5 * numpy(mine).sum(axis=0)) / (0.5 * fresh + 0.5 * 2)
    absolute = (0.5 * fresh * np.abs(placed) + 0.5 * np.abs(numpy(mine)).sum(axis=0))[None]
    bound = 2 * bounds_state.ema_codes(absolute, np.array([0.5 * fresh + 1]), 2, 1, 2.0**-53)
    assert_within("code", numpy(codebook.codes[1])[None], expected[None], bound)


@pytest.mark.parametrize("there", [1, 3, 6])
def test_data_initialise_with_tokens_that_are_there_each_at_most_once_more_than_another(there):
    codebook = EMACodebook(SIZE, DIM, initialise_from_data=True)
    tokens, valid = 1000 + torch.randn(COUNT, DIM), torch.arange(COUNT) < there
    tokens[~valid] = torch.nan
    codebook.initialise(tokens, valid)
    times = (codebook.codes[:, None] == tokens[None, valid]).all(dim=-1).sum(dim=0)
    assert times.sum() == SIZE
    assert times.max() - times.min() <= 1
    assert codebook.initialised
    first = codebook.codes.clone()
    codebook.initialise(torch.randn(COUNT, DIM), torch.ones(COUNT, dtype=torch.bool))
    assert torch.equal(codebook.codes, first), "only once"


def test_after_the_first_update_codes_from_data_lie_among_the_data():
    codebook = EMACodebook(SIZE, DIM, decay=0.5, epsilon=0.0, initialise_from_data=True)
    tokens, indices = 1000 + torch.randn(COUNT, DIM), torch.randint(0, SIZE, (COUNT,))
    codebook.initialise(tokens, torch.ones(COUNT, dtype=torch.bool))
    codebook.update(tokens, indices)
    low, high = numpy(tokens).min(axis=0), numpy(tokens).max(axis=0)
    rounding = bounds_state.ema_codes(high[None].repeat(SIZE, 0), np.ones(SIZE), COUNT, 1, 2.0**-24)
    middle = np.broadcast_to((low + high) / 2, (SIZE, DIM))
    assert_within("codes", numpy(codebook.codes), middle, (high - low) / 2 + rounding)


def test_no_token_does_not_initialise():
    codebook = EMACodebook(SIZE, DIM, initialise_from_data=True)
    before = codebook.codes.clone()
    codebook.initialise(torch.zeros(COUNT, DIM), torch.zeros(COUNT, dtype=torch.bool))
    assert not codebook.initialised
    assert torch.equal(codebook.codes, before)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_statistics_stay_wide_when_a_module_is_made_narrow(dtype):
    codebook = EMACodebook(SIZE, DIM, decay=0.999)
    before = {name: value.clone() for name, value in codebook.state_dict().items()}
    codebook.to(dtype)
    assert all(torch.equal(value, before[name]) for name, value in codebook.state_dict().items())
    assert codebook.counts.dtype == torch.float32
    assert codebook.double().counts.dtype == torch.float64


@pytest.mark.parametrize(
    ("arguments", "name"),
    [
        ({"codebook_size": 0}, "codebook_size"),
        ({"dim": 0}, "dim"),
        ({"decay": 0.0}, "decay"),
        ({"decay": 1.5}, "decay"),
        ({"epsilon": -1.0}, "epsilon"),
        ({"replace_below": float("nan")}, "replace_below"),
    ],
)
def test_an_argument_out_of_range_is_named(arguments, name):
    with pytest.raises(ValueError, match=f"^{name} is"):
        EMACodebook(**{"codebook_size": 2, "dim": 2, **arguments})


@pytest.mark.parametrize("parts", [1, 2, 4])
def test_each_micro_batch_of_accumulated_gradients_is_a_step(parts):
    """The closed form of as many steps as there are calls; backward and optimizer have no part in it."""
    module = VectorQuantize(DIM, SIZE, decay=0.5, epsilon=0.0)
    x = torch.randn(8, DIM)
    counts = module.codebooks[0].counts.clone()
    for part in x.chunk(parts):
        _, indices, loss = module(part.requires_grad_())
        loss.backward()
        counts = 0.5 * counts + 0.5 * torch.bincount(indices, minlength=SIZE)
    torch.testing.assert_close(module.codebooks[0].counts, counts, rtol=0, atol=0)  # halves of integers: exact


@pytest.mark.parametrize(("reentrant", "steps"), [(True, 1), (False, 2)])
def test_activation_checkpointing_is_as_many_steps_as_documented(reentrant, steps):
    plain = VectorQuantize(DIM, SIZE, decay=0.5, epsilon=0.0)
    checkpointed = copy.deepcopy(plain)
    x = torch.randn(8, DIM).requires_grad_()
    for _ in range(steps):
        plain(x)
    output, _, loss = checkpoint(checkpointed, x, use_reentrant=reentrant)
    (output.sum() + loss).backward()
    assert torch.equal(checkpointed.codebooks[0].counts, plain.codebooks[0].counts)
