"""Small programs at the edge of what can be followed: on one side they agree or differ, on the other they are named."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from torch import nn
from torch.autograd import Function

from vq_reference.testing.derivatives import Agreement, check_gradient

X = torch.randn(4, 6, generator=torch.Generator().manual_seed(0))


class Reversed(Function):
    """With `setup_context`, as newer code has it."""

    @staticmethod
    def forward(x, scale):
        return x.view_as(x)

    @staticmethod
    def setup_context(ctx, inputs, output):
        ctx.scale = inputs[1]

    @staticmethod
    def backward(ctx, g):
        return -ctx.scale * g, None


@pytest.mark.parametrize(
    ("declared", "verdict"),
    [
        ({}, Agreement.CANNOT_TELL),
        ({Reversed: lambda x, scale: x}, Agreement.DIFFERS),
        ({Reversed: lambda x, scale: (1 + scale) * x.detach() - scale * x}, Agreement.AGREES),
    ],
    ids=["not declared", "declared as the identity", "declared as reversed"],
)
def test_a_reversal_by_a_custom_function_is_what_it_is_declared_as(declared, verdict):
    report = check_gradient(lambda x: Reversed.apply(x.exp(), 0.5).sin(), X, declared=declared)
    assert report.verdict is verdict, report


@pytest.mark.parametrize("full", [False, True])
def test_a_program_that_does_nothing_agrees(full):
    """Nothing is computed, and nothing rounded but the step itself."""
    for program in (nn.Identity(), nn.Flatten(), lambda x: x):
        report = check_gradient(program, X, full=full)
        assert report.agrees, report


@pytest.mark.parametrize("wrong", [False, True])
def test_a_trained_tensor_that_nobody_was_told_of_is_named(wrong):
    codes = torch.randn(6, requires_grad=True, dtype=torch.float64)
    if wrong:
        codes.register_hook(lambda g: 2 * g)
    report = check_gradient(lambda x: x * codes, X)
    assert report.verdict is Agreement.CANNOT_TELL
    assert report.reason.startswith("a tensor of shape (6,) requires a gradient and is neither an input nor")
    assert check_gradient(lambda x: x * codes, X, wrt=["inputs[0]"]).agrees
    assert check_gradient(lambda x, codes: x * codes, (X, codes)).agrees is not wrong


def test_a_clamp_that_has_nothing_to_do_is_not_in_the_way():
    def clamped(x, low):
        y = x.sin()
        y.detach().clamp_(min=low)
        return y * 2

    assert check_gradient(lambda x: clamped(x, -1.0), X).agrees
    assert "clamp_" in check_gradient(lambda x: clamped(x, 0.0), X).reason
    indices = torch.tensor([[0, 2], [2, 1]])
    assert check_gradient(nn.Embedding(3, 2, max_norm=100.0), indices).agrees
    assert "renorm" in check_gradient(nn.Embedding(3, 2, max_norm=0.01), indices).reason


@pytest.mark.parametrize("name", ["Gamma", "Dirichlet"])
def test_a_draw_with_an_implicit_derivative_is_named(name):
    def program(x):
        shape = x.exp() + 1
        arguments = (shape, shape) if name == "Gamma" else (shape,)
        return getattr(torch.distributions, name)(*arguments).rsample()

    assert check_gradient(program, X).verdict is Agreement.CANNOT_TELL


class Casting(nn.Module):
    """Computes in float32 whatever it is given, as vector-quantize-pytorch did up to 1.23."""

    def __init__(self, scale: float = 1.0) -> None:
        super().__init__()
        self.layer = nn.Linear(6, 3)
        self.layer.weight.register_hook(lambda g: scale * g)

    def forward(self, x):
        y = self.layer(x.float())
        return y + (y.round() - y).detach(), y.square().mean()


@pytest.mark.parametrize("full", [False, True])
def test_a_program_that_casts_to_float32_is_checked_in_float32(full):
    with pytest.raises(RuntimeError, match="dtype"):
        check_gradient(Casting(), X)
    report = check_gradient(Casting(), X, full=full, dtype=torch.float32)
    assert report.agrees, report
    assert report.notes == ("a gradient passes torch.float32: the errors are that dtype's",)
    # a third of the digits are resolved: 2^−8
    wrong = check_gradient(Casting(1 + 2.0**-6), X, full=full, dtype=torch.float32)
    assert wrong.verdict is Agreement.DIFFERS, wrong
    assert wrong.discrepancy.of.split(" / d ")[1].startswith("layer.weight")


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_all_is_run_in_the_dtype_that_was_asked_for(dtype):
    seen = []

    def program(x, y):
        seen.append((x.dtype, y.dtype, torch.rand(1).dtype))
        return x * y

    assert check_gradient(program, (X, X.double()), dtype=dtype).agrees
    assert set(seen) == {(dtype,) * 3}


@pytest.mark.parametrize("wrong", [False, True])
def test_a_complex_parameter_is_named(wrong):
    class Complex(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.randn(6, dtype=torch.complex64))
            if wrong:
                self.weight.register_hook(lambda g: 2 * g)

        def forward(self, x):
            return (x * self.weight).abs()

    report = check_gradient(Complex(), X)
    assert (report.verdict, report.reason) == (Agreement.CANNOT_TELL, "weight is complex: only real tensors are moved")
    assert check_gradient(Complex(), X, wrt=["inputs[0]"]).agrees


class Adversaries(nn.Module):
    """A critic that is frozen where the generator learns, and whose own loss takes what is generated as it is."""

    def __init__(self, frozen: bool) -> None:
        super().__init__()
        self.generator, self.critic, self.frozen = nn.Linear(6, 6), nn.Linear(6, 1), frozen

    def forward(self, x):
        self.critic.requires_grad_(not self.frozen)
        fooled = self.critic(self.generator(x)).mean()
        self.critic.requires_grad_()
        return fooled, self.critic(self.generator(x).detach()).mean()


def test_a_parameter_that_is_switched_off_in_the_program_is_named():
    assert check_gradient(Adversaries(frozen=False), X).agrees
    report = check_gradient(Adversaries(frozen=True), X)
    assert report.reason == "requires_grad is switched off within the program"
    assert check_gradient(lambda x: x.exp().requires_grad_().sin(), X).agrees


def test_a_part_that_runs_in_another_thread_is_named():
    """Its stops are not seen: without this, a right program would differ."""

    def token(x):
        return x * x.round().detach()

    def program(x):
        with ThreadPoolExecutor(2) as pool:
            return torch.stack(list(pool.map(token, x)))

    assert check_gradient(program, X).reason == "a part of it runs in other threads, where nothing can be followed"
    assert check_gradient(lambda x: torch.stack(list(map(token, x))), X).agrees
