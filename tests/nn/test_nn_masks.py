"""Padding: what it holds changes nothing, now or later, and without any there is no trace of a mask."""

import copy

import pytest
import torch

from vq_reference.nn import ResidualQuantizer, VectorQuantize
from vq_reference.nn.masks import valid_tokens

DIM, BATCH, LENGTH = 6, 3, 5
LENGTHS = torch.tensor([LENGTH, 0, 2])
MASK = torch.arange(LENGTH) < LENGTHS[:, None]
LAYERS = {
    "plain": {},
    "cosine": {"metric": "cosine"},
    "heads": {"heads": 2},
    "separate": {"heads": 2, "separate_codebooks": True},
    "projected": {"codebook_dim": 4},
    "rotation": {"estimator": "rotation", "codebook_dim": 4, "metric": "cosine", "heads": 2},
    "trained": {"codes_learn_by": "gradient"},
    "stateful": {"replace_below": 1.0, "initialise_from_data": True, "decay": 0.5},
}


def build(name, channel_first=False):
    torch.manual_seed(0)
    if name == "residual":
        layers = [VectorQuantize(4, 8, decay=0.5) for _ in range(3)]
        return ResidualQuantizer(layers, dim=DIM, channel_first=channel_first)
    return VectorQuantize(DIM, 8, channel_first=channel_first, **LAYERS[name])


def run(module, x, **masked):
    """Return output, indices and loss, the gradients at x and every parameter, and the state, of one training step."""
    x = x.clone().requires_grad_()
    axes = (1, 2) if not module.channel_first else (2, 1)
    torch.manual_seed(1)
    output, indices, loss = module(x.transpose(*axes) if module.channel_first else x, **masked)
    output = output.transpose(*axes) if module.channel_first else output
    weights = torch.arange(output.numel()).reshape(output.shape) / output.numel()
    asked = [x, *module.parameters()]
    gradients = torch.autograd.grad([(output * weights).nansum(), loss.sum()], asked)
    return [output, indices, loss, *gradients, *module.state_dict().values()]


def same(one, other):
    return len(one) == len(other) and all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


EVERY = [*LAYERS, "residual"]


@pytest.mark.parametrize("channel_first", [False, True])
@pytest.mark.parametrize("name", EVERY)
def test_a_mask_of_all_tokens_is_no_mask(name, channel_first):
    x = torch.randn(BATCH, LENGTH, DIM, generator=torch.Generator().manual_seed(2))
    plain = run(build(name, channel_first), x)
    assert same(run(build(name, channel_first), x, mask=torch.ones(BATCH, LENGTH, dtype=torch.bool)), plain)
    assert same(run(build(name, channel_first), x, lengths=torch.full((BATCH,), LENGTH)), plain)


@pytest.mark.parametrize("channel_first", [False, True])
@pytest.mark.parametrize("name", EVERY)
@pytest.mark.parametrize("content", [0.0, 1e30, float("nan"), float("inf")])
def test_what_padding_holds_changes_nothing_now_or_in_the_state(name, channel_first, content):
    x = torch.randn(BATCH, LENGTH, DIM, generator=torch.Generator().manual_seed(2))
    other = torch.where(MASK[..., None], x, content)
    first, second = build(name, channel_first), build(name, channel_first)
    for _ in range(3):
        assert same(run(first, x, mask=MASK), run(second, other, mask=MASK))


@pytest.mark.parametrize("name", EVERY)
def test_lengths_are_a_mask(name):
    x = torch.randn(BATCH, LENGTH, DIM, generator=torch.Generator().manual_seed(2))
    assert same(run(build(name), x, lengths=LENGTHS), run(build(name), x, mask=MASK))


@pytest.mark.parametrize("name", EVERY)
def test_padding_comes_out_as_zero_with_index_minus_one_and_no_gradient(name):
    x = torch.randn(BATCH, LENGTH, DIM, generator=torch.Generator().manual_seed(2))
    output, indices, _, at_x, *_ = run(build(name), x, mask=MASK)
    assert not output[~MASK].any()
    assert (indices[~MASK] == -1).all()
    assert (indices[MASK] >= 0).all()
    assert not at_x[~MASK].any()
    assert at_x[MASK].any(dim=-1).all()


@pytest.mark.parametrize("name", EVERY)
def test_decode_gives_the_padded_output_back(name):
    module = build(name).eval()
    output, indices, _ = module(torch.randn(BATCH, LENGTH, DIM), mask=MASK)
    assert torch.equal(module.decode(indices), output)


@pytest.mark.parametrize("name", EVERY)
def test_a_batch_of_padding_is_finite_costs_nothing_and_is_no_step(name):
    module = build(name)
    before = copy.deepcopy(module.state_dict())
    x = torch.randn(BATCH, LENGTH, DIM)
    output, indices, loss, at_x, *_ = run(module, x, mask=torch.zeros(BATCH, LENGTH, dtype=torch.bool))
    assert not output.any()
    assert (indices == -1).all()
    assert not loss.any()
    assert not at_x.any()
    assert same(list(module.state_dict().values()), list(before.values()))


@pytest.mark.parametrize("name", ["plain", "heads", "separate", "trained", "stateful"])
def test_the_masked_loss_and_state_are_those_of_the_valid_tokens_alone(name):
    """In numbers so short that no sum rounds, whatever its order."""
    x = torch.randint(-8, 9, (BATCH, LENGTH, DIM), generator=torch.Generator().manual_seed(2)) / 4
    losses, states = [], []
    for tokens, mask in ((x, MASK), (x[MASK], None)):
        module = build(name)
        for codebook in module.codebooks:
            codebook.place((codebook.codes * 8).round() / 8)
        torch.manual_seed(1)
        losses.append(module(tokens, mask=mask)[2])
        states.append(list(module.state_dict().values()))
    assert torch.equal(*losses)
    assert same(*states)


def test_mask_and_lengths_that_do_not_fit_are_named():
    x = torch.zeros(BATCH, LENGTH, DIM)
    with pytest.raises(ValueError, match="mask and lengths"):
        valid_tokens(x, MASK, LENGTHS)
    with pytest.raises(ValueError, match=r"mask has shape \(5,\)"):
        valid_tokens(x, MASK[0], None)
    with pytest.raises(TypeError, match="mask has dtype"):
        valid_tokens(x, MASK.int(), None)
    with pytest.raises(TypeError, match="lengths has dtype"):
        valid_tokens(x, None, LENGTHS.float())
    with pytest.raises(ValueError, match=r"lengths has shape \(2,\)"):
        valid_tokens(x, None, LENGTHS[:2])
