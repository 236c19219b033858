"""The shares of a stop-gradient loss name its fault, from outside."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional

from vq_reference.testing.derivatives.shares import RIGHT, UNKNOWN, measure_shares, patterns

BETA = 0.25


def mse(a, b):
    return functional.mse_loss(a, b)


# each routing, written as somebody would write it: (x, q) -> loss
LOSSES = {
    RIGHT: lambda x, q: mse(q, x.detach()) + BETA * mse(x, q.detach()),
    "beta on the codebook half (taming-transformers, issues 46 and 57)": (
        lambda x, q: BETA * mse(q, x.detach()) + mse(x, q.detach())
    ),
    "encoder half missing (vector-quantize-pytorch 1.20.1 to 1.20.10, issue 177)": lambda x, q: mse(q, x.detach()),
    "codebook half missing, or a codebook that is not trained by this loss": lambda x, q: mse(x, q.detach()),
    "no stop-gradient in either half": lambda x, q: mse(q, x) + BETA * mse(x, q),
    "loss computed behind the straight-through estimator (jax-vqvae-gpt, issue 2)": (
        lambda x, q: mse(x + (q - x).detach(), x.detach()) + BETA * mse(x, (x + (q - x).detach()).detach())
    ),
    "codebook half detached, the encoder half in place": (
        lambda x, q: mse(q.detach(), x.detach()) + BETA * mse(x, q.detach())
    ),
    "encoder half detached, the codebook half in place": (
        lambda x, q: mse(q, x.detach()) + BETA * mse(x.detach(), q.detach())
    ),
    "detached altogether": lambda x, q: (1 + BETA) * mse(x, q).detach(),
    UNKNOWN: lambda x, q: mse(q, x.detach()) + BETA * mse(x, q.detach()) + 0.1 * mse(x, q),
}


def quantizer(seed=0):
    """x, the weight of a transform, and the codes that are nearest to x: away from every tie."""
    generator = torch.Generator().manual_seed(seed)
    x, frozen, weight = (torch.randn(n, 3, generator=generator, dtype=torch.float64) for n in (6, 4, 3))
    x.requires_grad_(), weight.requires_grad_()
    return x, weight, lambda: (codes := frozen @ weight.t())[torch.cdist(x, codes).argmin(-1)]


@pytest.mark.parametrize("name", LOSSES)
def test_each_routing_is_named(name):
    x, weight, code = quantizer()
    shares = measure_shares(lambda: LOSSES[name](x, code()), [x], [weight], beta=BETA)
    assert shares.pattern == name, shares


def test_every_known_routing_is_tried():
    assert set(LOSSES) == {*patterns(BETA), UNKNOWN}


@pytest.mark.parametrize("seed", range(5))
def test_the_shares_of_a_right_loss_add_up_to_one(seed):
    x, weight, code = quantizer(seed)
    shares = measure_shares(lambda: 7 * LOSSES[RIGHT](x, code()), [x], [weight], beta=BETA)
    assert shares.encoder.is_(BETA / (1 + BETA))
    assert shares.codebook.is_(1 / (1 + BETA))
    both = shares.encoder.value + shares.codebook.value
    assert abs(both - 1) <= shares.encoder.error + shares.codebook.error


def test_the_tensors_are_put_back_and_get_no_gradient():
    x, weight, code = quantizer()
    before = x.detach().clone(), weight.detach().clone()
    measure_shares(lambda: LOSSES[RIGHT](x, code()), [x], [weight], beta=BETA)
    assert torch.equal(x, before[0])
    assert torch.equal(weight, before[1])
    assert x.grad is None


def test_a_tie_is_no_place_to_measure_at():
    codes = torch.tensor([[0.0, 0.0], [1.0, 0.0]], dtype=torch.float64, requires_grad=True)
    x = torch.tensor([[0.5, 0.3]], dtype=torch.float64, requires_grad=True)
    with pytest.raises(ValueError, match="an index changes within the step"):
        measure_shares(lambda: LOSSES[RIGHT](x, codes[torch.cdist(x, codes).argmin(-1)]), [x], [codes], beta=BETA)


def test_a_loss_of_zero_has_no_shares():
    x, weight, code = quantizer()
    with pytest.raises(ValueError, match="no measurable derivative by the encoder"):
        measure_shares(lambda: 0 * LOSSES[RIGHT](x, code()), [x], [weight], beta=BETA)


def test_arguments_that_make_no_sense_are_named():
    x, weight, code = quantizer()
    with pytest.raises(ValueError, match=r"encoder\[0\] is torch.float32"):
        measure_shares(code, [x.detach().float()], [weight], beta=BETA)
    with pytest.raises(ValueError, match="beta is -1"):
        measure_shares(code, [x], [weight], beta=-1)
