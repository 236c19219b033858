"""The residual stack against its oracle, in numbers so short that sums do not round, and its layer dropout."""

import numpy as np
import pytest
import torch

from vq_reference import residual
from vq_reference.nn import ResidualQuantizer, VectorQuantize
from vq_reference.testing.laws.assertions import assert_within
from vq_reference.testing.laws.bounds.bounds import gamma, stable_rotation

U = 2.0**-24
DIM, SIZE, COUNT, LAYERS = 4, 8, 10, 3


def numpy(tensor):
    return tensor.detach().double().numpy().copy()


def short(*shape, seed=0):
    return torch.randint(-64, 65, shape, generator=torch.Generator().manual_seed(seed)) / 32


def build(trained=False, estimator="straight_through", heads=1, **arguments):
    kind = "gradient" if trained else "ema"
    layers = [VectorQuantize(DIM, SIZE, heads=heads, codes_learn_by=kind) for _ in range(LAYERS)]
    for i, layer in enumerate(layers):
        layer.codebooks[0].place(short(SIZE, DIM // heads, seed=i + 1) / 2**i)
    stack = ResidualQuantizer(layers, estimator=estimator, **arguments)
    codes = tuple(numpy(layer.codes[0]) for layer in layers)
    return stack, residual.ResidualStack(codes, trained=trained, estimator=estimator)


@pytest.mark.parametrize("trained", [False, True])
@pytest.mark.parametrize("estimator", ["straight_through", "rotation"])
def test_values_and_gradients_are_those_of_the_oracle(trained, estimator):
    stack, oracle = build(trained, estimator)
    x, g = short(COUNT, DIM).requires_grad_(), short(COUNT, DIM, seed=9)
    output, indices, losses = stack.eval()(x)
    g_losses = torch.tensor([1.0, 2.0, 4.0])
    codes = [layer.codebooks[0].codes for layer in stack.layers] if trained else []
    at_x, *at_codes = torch.autograd.grad([output, losses], [x, *codes], [g, g_losses])
    wanted = oracle.forward(numpy(x))
    gradients = oracle.gradients(numpy(x), numpy(g), g_losses.tolist())
    assert np.array_equal(numpy(output), wanted.output)
    assert np.array_equal(indices.numpy(), wanted.indices)
    assert_within("losses", numpy(losses), wanted.losses, gamma(x.numel() + 8, U) * wanted.losses)
    # residuals are exact: each loss has eight roundings, and the sum of all of them and the estimator some more
    residuals, _, quantized = oracle.residuals(numpy(x))
    apart = sum(np.abs(r - q) * w for r, q, w in zip(residuals, quantized, g_losses.tolist(), strict=True))
    absolute = np.abs(numpy(g)) + 2 * oracle.beta * apart / x.numel()
    turned = 0.0
    if estimator == "rotation":
        ratio = np.linalg.norm(wanted.output, axis=1) / np.linalg.norm(numpy(x), axis=1)
        turned = (stable_rotation(DIM, U) * ratio * np.linalg.norm(numpy(g), axis=1))[:, None]
        absolute = absolute + turned + ratio[:, None] * np.linalg.norm(numpy(g), axis=1)[:, None]
    assert_within("gradient at x", numpy(at_x), gradients.x, turned + gamma(8 + LAYERS + 1, U) * absolute)
    for i, gradient in enumerate(at_codes):
        at_q = 2 * float(g_losses[i]) * np.abs(residuals[i] - quantized[i]) / x.numel()
        bound = gamma(8 + COUNT, U) * at_q.sum(axis=0)
        assert_within(f"codes {i}", numpy(gradient), gradients.codes[i], bound)


def test_the_gain_is_one_whatever_the_number_of_layers():
    stack, _ = build()
    x, g = short(COUNT, DIM).requires_grad_(), short(COUNT, DIM, seed=9)
    assert torch.equal(torch.autograd.grad(stack(x)[0], x, g)[0], g)


@pytest.mark.parametrize("layer", range(LAYERS))
def test_every_loss_reaches_x(layer):
    stack, _ = build()
    x = short(COUNT, DIM).requires_grad_()
    assert torch.autograd.grad(stack(x)[2][layer], x)[0].any()


@pytest.mark.parametrize("heads", [1, 2])
@pytest.mark.parametrize("channel_first", [False, True])
def test_shapes_are_those_that_are_declared_with_and_without_dropped_layers(heads, channel_first):
    stack, _ = build(heads=heads, dim=6, channel_first=channel_first, layer_dropout=True)
    x = short(2, 6, 5, 3) if channel_first else short(2, 5, 3, 6)
    seen = set()
    for seed in range(20):
        torch.manual_seed(seed)
        output, indices, losses = stack.train()(x)
        assert output.shape == x.shape
        assert indices.shape == ((2, 5, 3, LAYERS) if heads == 1 else (2, 5, 3, LAYERS, heads))
        assert losses.shape == (LAYERS,)
        by_layer = indices.movedim(3, 0).flatten(1)
        kept = int((by_layer >= 0).all(dim=1).sum())
        assert (by_layer[kept:] == -1).all()
        assert not losses[kept:].any()
        assert losses[:kept].all()
        seen.add(kept)
    assert seen == set(range(1, LAYERS + 1))
    output, indices, _ = stack.eval()(x)
    assert (indices >= 0).all(), "no dropout in eval"
    assert torch.equal(stack.decode(indices), output)


def test_a_dropped_layer_learns_nothing():
    stack, _ = build(layer_dropout=True)
    before = [layer.codes.clone() for layer in stack.layers]
    torch.manual_seed(next(s for s in range(99) if torch.randint(1, 4, (), generator=seeded(s)) == 1))
    _, indices, _ = stack(short(COUNT, DIM))
    assert (indices[:, 1:] == -1).all()
    moved = [not torch.equal(layer.codes, codes) for layer, codes in zip(stack.layers, before, strict=True)]
    assert moved == [True, False, False]


def seeded(seed):
    return torch.Generator().manual_seed(seed)


def test_decode_leaves_out_layers_that_are_minus_one():
    stack, oracle = build()
    _, indices, _ = stack.eval()(short(COUNT, DIM))
    indices[:, 1] = -1
    assert np.array_equal(numpy(stack.decode(indices)), oracle.decode(indices.numpy()))
    with pytest.raises(ValueError, match="padded with -1"):
        stack.decode(indices[:, :2])


def test_train_gives_what_eval_gives():
    stack, _ = build()
    x = short(COUNT, DIM)
    for expected, actual in zip(stack.eval()(x), stack.train()(x), strict=True):
        assert torch.equal(expected, actual)


def test_layers_that_do_not_fit_are_named():
    plain = VectorQuantize(DIM, SIZE)
    with pytest.raises(ValueError, match="layers is empty"):
        ResidualQuantizer([])
    for other in ({"metric": "cosine"}, {"codebook_dim": 2}, {"channel_first": True}, {"heads": 2}):
        with pytest.raises(ValueError, match=r"layers\[1\]"):
            ResidualQuantizer([plain, VectorQuantize(DIM, SIZE, **other)])
