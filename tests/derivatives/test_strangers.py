"""Programs as strangers write them, each right and with one thing wrong: the one agrees, and the other never does."""

from __future__ import annotations

import functools
import random
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from vq_reference.testing.derivatives import Agreement, check_gradient

X = torch.randn(4, 6, generator=torch.Generator().manual_seed(0))


def spoilt(tensor: Tensor, wrong: bool) -> Tensor:
    """Return the same, whose gradient is by a thousandth too large where it is `wrong`."""
    alias = tensor * 1
    if wrong:
        alias.register_hook(lambda g: 1.001 * g)
    return alias


class Program(nn.Module):
    def __init__(self, wrong: bool) -> None:
        super().__init__()
        self.wrong = wrong
        self.layer = nn.Linear(6, 6)


class SelfDistillation(Program):
    """The target's weights are a dictionary, averaged in forward and called by `functional_call`."""

    def __init__(self, wrong):
        super().__init__(wrong)
        self.target = {name: value.detach().clone() for name, value in self.layer.named_parameters()}

    def forward(self, x):
        with torch.no_grad():
            for name, value in self.layer.named_parameters():
                self.target[name] = 0.9 * self.target[name] + 0.1 * value
            wanted = torch.func.functional_call(self.layer, self.target, (x,))
        return functional.mse_loss(spoilt(self.layer(x), self.wrong).sin(), wanted)


class MixtureOfExperts(Program):
    """Two of four experts a token, and a loss that holds the load still."""

    def __init__(self, wrong):
        super().__init__(wrong)
        self.gate, self.experts = nn.Linear(6, 4), nn.ModuleList(nn.Linear(6, 6) for _ in range(4))

    def forward(self, x):
        p = self.gate(x).softmax(-1)
        weights, chosen = spoilt(p, self.wrong).topk(2)
        out = torch.zeros_like(x)
        for k, expert in enumerate(self.experts):
            rows, slot = (chosen == k).nonzero(as_tuple=True)
            if len(rows):
                out.index_add_(0, rows, expert(x[rows]) * weights[rows, slot, None])
        load = functional.one_hot(chosen, 4).to(x.dtype).mean((0, 1))
        return out, (p.mean(0) * load).sum()


class GradientReversal(Program):
    """Of a domain classifier (Ganin & Lempitsky, arXiv 1409.7495): by a stop, or by a hook that nobody declared."""

    def forward(self, x):
        h = self.layer(x).tanh()
        if not self.wrong:
            return (2 * h.detach() - h).exp()
        reversed_ = h * 1
        reversed_.register_hook(lambda g: -g)
        return reversed_.exp()


class Gumbel(Program):
    def forward(self, x):
        noise = -torch.empty_like(x).exponential_().log()
        y = ((self.layer(x) + noise) / 0.7).softmax(-1)
        hard = torch.zeros_like(y).scatter_(-1, y.argmax(-1, keepdim=True), 1.0)
        return (hard - y.detach() + spoilt(y, self.wrong)) @ self.layer.weight


class MovingStatistics(Program):
    """A buffer that forward moves: bound anew, or through `data` after autograd saved it."""

    def __init__(self, wrong):
        super().__init__(wrong)
        self.register_buffer("mean", torch.randn(6))

    def forward(self, x):
        h = self.layer(x)
        y = h * self.mean
        if self.wrong:
            self.mean.data.lerp_(h.detach().mean(0), 0.1)
        else:
            self.mean = self.mean.lerp(h.detach().mean(0), 0.1)
        return y


class TwoNames(Program):
    """A buffer is moved by its second name before it is used, or after autograd saved it."""

    def __init__(self, wrong):
        super().__init__(wrong)
        self.register_buffer("codes", torch.randn(2, 6))
        self.first = self.codes.data[0]

    def forward(self, x):
        first = self.codes[0].clone()
        if not self.wrong:
            self.first.mul_(0.9)
        y = self.layer(x) * self.codes[0]
        if self.wrong:
            self.first.mul_(0.9)
        assert torch.equal(self.codes[0], 0.9 * first)
        return y


class StochasticDepth(Program):
    """What is drawn comes from the module's own generators, of NumPy's and of Python's."""

    def __init__(self, wrong):
        super().__init__(wrong)
        self.numpys, self.pythons = np.random.default_rng(1), random.Random(2)

    def forward(self, x):
        for _ in range(4):
            if self.pythons.random() < 0.7:
                x = x + spoilt(self.layer(x), self.wrong).tanh() * float(self.numpys.normal())
        return functional.dropout(x, 0.3)


class SecondStep(Program):
    """A loss behind a step of gradient descent (Finn et al., MAML, arXiv 1703.03400)."""

    def forward(self, x):
        w = self.layer.weight
        (g,) = torch.autograd.grad(functional.linear(x, w).square().mean(), w, create_graph=True)
        return functional.linear(x, w - 0.1 * spoilt(g, self.wrong)).square().mean()


class GradientPenalty(Program):
    """At a leaf that forward makes (Gulrajani et al., arXiv 1704.00028): that one belongs to nobody."""

    def forward(self, x):
        at = x.detach().requires_grad_()
        (g,) = torch.autograd.grad(self.layer(at).exp().sum(), at, create_graph=True)
        return spoilt(g.norm(dim=1) - 1, self.wrong).square().mean()


class Distribution(Program):
    """Returns an object, of which nothing but the mean is wrong."""

    def forward(self, x):
        h = self.layer(x)
        return h.sum(), torch.distributions.Normal(spoilt(h, self.wrong), h.exp())


class Namespace(Program):
    def forward(self, x):
        h = self.layer(x)
        return h, SimpleNamespace(loss=spoilt(h, self.wrong).square().mean())


class Attribute(Program):
    """Trains a tensor that is no parameter."""

    def __init__(self, wrong):
        super().__init__(wrong)
        self.codes = torch.randn(6, requires_grad=True)
        if wrong:
            self.codes.register_hook(lambda g: 2 * g)

    def forward(self, x):
        return self.layer(x) * self.codes


class AdversarialExamples(Program):
    """Found by steps of an optimizer in forward, on a leaf of its own, with a backward that no parameter keeps."""

    def forward(self, x):
        shift = torch.zeros_like(x).requires_grad_()
        optimizer = torch.optim.SGD([shift], 0.1)
        for _ in range(2):
            optimizer.zero_grad()
            (-self.layer(x.detach() + shift).square().mean()).backward()
            optimizer.step()
        return spoilt(self.layer(x + shift.detach()), self.wrong).square().mean()


class NestedObjects(Program):
    """What is wrong is returned in an object's list, in an object that leads back to itself."""

    def forward(self, x):
        h = self.layer(x)
        inner = SimpleNamespace(losses=[spoilt(h, self.wrong).square().mean()])
        inner.itself = inner
        return SimpleNamespace(out=h, inner=inner)


class Recomputed(Program):
    """A checkpoint, whose second run sees what the first has left in a buffer."""

    def __init__(self, wrong):
        super().__init__(wrong)
        self.register_buffer("scale", torch.ones(()))

    def forward(self, x):
        def part(t):
            if self.wrong:
                self.scale.mul_(2)
            return (self.layer(t) * self.scale).tanh()

        return checkpoint(part, x, use_reentrant=False)


class SafeRoot(Program):
    """`where` takes the value of one branch, and the gradient of both: not a number, where the other is not one."""

    def forward(self, x):
        y = x if self.wrong else torch.where(x > 0, x, torch.ones_like(x))
        return torch.where(x > 0, y.sqrt(), torch.zeros_like(x))


def of_a_plain_object(wrong):
    class Trainer:
        def __init__(self):
            self.model = nn.Linear(6, 3)
            if wrong:
                self.model.weight.register_hook(lambda g: 2 * g)

        def loss(self, x):
            return self.model(x).square().mean()

    return Trainer().loss


def of_a_list(wrong):
    layers = [nn.Linear(6, 6), nn.Linear(6, 6)]
    if wrong:
        layers[0].bias.register_hook(lambda g: 2 * g)
    return lambda x: layers[1](layers[0](x).tanh())


def behind_a_wrapper(wrong):
    """`wraps` gives it the name and the module of a function of torch's."""
    layer = nn.Linear(6, 6)
    if wrong:
        layer.weight.register_hook(lambda g: 2 * g)

    @functools.wraps(functional.relu)
    def wrapped(x):
        return layer(x)

    return lambda x: wrapped(x).sin()


def weights_by_parametrization(wrong):
    class Signs(nn.Module):
        def forward(self, w):
            return w + (w.sign() - w).detach()

    layer = nn.utils.parametrizations.spectral_norm(nn.Linear(6, 3))
    nn.utils.parametrize.register_parametrization(layer, "bias", Signs())
    if wrong:
        layer.parametrizations.bias.original.register_hook(lambda g: g + 1)
    return layer


def recurrent(wrong):
    layer = nn.LSTM(6, 4, 2, dropout=0.5, bidirectional=True)
    if wrong:
        layer.weight_hh_l1.register_hook(lambda g: 1.001 * g)
    return layer


PROGRAMS = [
    SelfDistillation, MixtureOfExperts, GradientReversal, Gumbel, MovingStatistics, TwoNames, StochasticDepth,
    SecondStep, GradientPenalty, AdversarialExamples, Distribution, Namespace, NestedObjects, Attribute, Recomputed,
    SafeRoot, of_a_plain_object, of_a_list, behind_a_wrapper, weights_by_parametrization, recurrent,
]  # fmt: skip


@pytest.mark.parametrize("make", PROGRAMS, ids=lambda make: make.__name__)
def test_the_right_one_agrees_and_the_wrong_one_differs(make):
    for wrong, verdict in ((False, Agreement.AGREES), (True, Agreement.DIFFERS)):
        torch.manual_seed(3)
        report = check_gradient(make(wrong), X)
        assert report.verdict is verdict, report
