"""Each way to stop a gradient, alone: it is on the report's list, and what it returned is held."""

from __future__ import annotations

import pytest
import torch
from einops import rearrange, reduce
from einx import get_at
from torch.nn import functional

from vq_reference.testing.derivatives import check_gradient

X = torch.randn(4, 6, generator=torch.Generator().manual_seed(0))
EDGES = torch.linspace(-2, 2, 9)


def within(region, x):
    with region():
        y = x.exp()
    return y.clone()


def detached_in_place(x):
    y = x.exp()
    return y.detach_()


# x -> what is stopped, and the name that the report has for it
STOPS = {
    "detach": (lambda x: x.exp().detach(), "detach"),
    "detach_": (detached_in_place, "Tensor.detach_"),
    "data": (lambda x: x.exp().data, "Tensor.data"),
    "no_grad": (lambda x: within(torch.no_grad, x), "exp"),
    "inference_mode": (lambda x: within(torch.inference_mode, x), "exp"),
    "item": (lambda x: x.sum().item(), "_local_scalar_dense"),
    "float": (lambda x: float(x.sum()), "_local_scalar_dense"),
    "tolist": (lambda x: torch.tensor(x.exp().tolist()), "Tensor.tolist"),
    "numpy": (lambda x: torch.from_numpy(x.detach().numpy() * 2), "detach"),
    **{name: (lambda x, name=name: getattr(torch, name)(3 * x), name) for name in ("ceil", "floor", "round", "sign")},
    "trunc": (lambda x: torch.fix(3 * x), "trunc"),
    "divided and rounded": (lambda x: torch.div(x, 0.3, rounding_mode="floor"), "div.Tensor_mode"),
    "comparison": (lambda x: x > 0.3, "gt.Scalar"),
    "argmin": (lambda x: functional.one_hot(x.argmin(-1), 6), "argmin"),
    "argmax": (lambda x: functional.one_hot(x.argmax(-1), 6), "argmax"),
    "argsort": (lambda x: x.argsort(), "sort"),
    "topk": (lambda x: x.topk(6).indices, "topk"),
    "bucketize": (lambda x: torch.bucketize(x, EDGES.to(x)), "bucketize.Tensor"),
    "draws from a choice": (lambda x: x.softmax(-1).multinomial(6), "multinomial"),
    "a draw": (lambda x: torch.rand(6), "rand"),
    "bernoulli": (lambda x: torch.bernoulli(x.sigmoid()), "bernoulli"),
}


@pytest.mark.filterwarnings("ignore:Converting a tensor with requires_grad")
@pytest.mark.parametrize("full", [False, True], ids=["directions", "jacobian"])
@pytest.mark.parametrize("name", STOPS)
def test_what_is_stopped_is_a_constant(name, full):
    stop, reported = STOPS[name]
    report = check_gradient(lambda x: x * stop(x) + x, X, full=full)
    assert report.agrees, report
    assert reported in report.stops, report.stops


# what is looked up by an index, x -> tensor; the gradient goes to what is looked up, and not to the choice
LOOK_UPS = {
    "indexing": lambda x: x[torch.arange(4), x.argmax(-1)],
    "take_along_dim": lambda x: x.take_along_dim(x.argsort(-1, descending=True), -1),
    "gather": lambda x: x.gather(-1, x.argmin(-1, keepdim=True)),
    "embedding": lambda x: functional.embedding(x.argmax(-1) % 4, x),
    "one_hot": lambda x: functional.one_hot(x.argmax(-1), 6).to(x.dtype) @ x.t(),
    "index_select": lambda x: x.index_select(0, x.argmax(-1) % 4),
    "where": lambda x: torch.where(x > x.mean(), x.exp(), x.sin()),
    "mask": lambda x: x[x > 0],
    "sort": lambda x: x.sort(-1).values * EDGES[:6].to(x),
    "topk": lambda x: x.topk(3).values,
    "max": lambda x: x.max(dim=-1).values,
    "median": lambda x: x.median(dim=0).values,
    "kthvalue": lambda x: x.kthvalue(2).values,
    "cummax": lambda x: x.cummax(0).values,
    "scatter": lambda x: torch.zeros_like(x).scatter_add(1, x.argsort(-1), x * x),
    "einx": lambda x: get_at("[n] d, m -> m d", x, x.argmax(-1) % 4),
    "einops": lambda x: reduce(rearrange(x, "(a b) d -> a d b", a=2), "a d b -> d", "max"),
}


@pytest.mark.parametrize("full", [False, True], ids=["directions", "jacobian"])
@pytest.mark.parametrize("name", LOOK_UPS)
def test_what_is_looked_up_is_differentiated_and_its_index_is_not(name, full):
    report = check_gradient(lambda x: LOOK_UPS[name](x).square(), X, full=full)
    assert report.agrees, report
    assert not report.unreached
