"""Each safeguard of the check, taken out: another verdict comes out, so that the tests that expect this one fail."""

from __future__ import annotations

import random
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.autograd import Function

from vq_reference.testing.derivatives import Agreement, check_gradient
from vq_reference.testing.mutants import Mutant

X = torch.randn(4, 3, generator=torch.Generator().manual_seed(1))
DROPS_EVERYTHING = nn.MultiheadAttention(3, 1, dropout=1.0)
AGREES, DIFFERS, CANNOT_TELL = Agreement.AGREES, Agreement.DIFFERS, Agreement.CANNOT_TELL


class Round(Function):
    @staticmethod
    def forward(ctx, x):
        return x.round()

    @staticmethod
    def backward(ctx, g):
        return g


class FirstBatch(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("codes", torch.zeros(4, 3))

    def forward(self, x: Tensor) -> Tensor:
        self.codes.data.copy_(x * 2)
        return x * self.codes


class Hooked(nn.Linear):
    def __init__(self) -> None:
        super().__init__(3, 3)
        self.register_full_backward_hook(lambda module, inputs, outputs: None)


class Padded(nn.Embedding):
    def __init__(self) -> None:
        super().__init__(3, 2, padding_idx=1)

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(torch.tensor([0, 1, 2, 1])) * x[:, :1]


def tampered(x):
    y = x.exp()
    y.register_hook(lambda g: 2 * g)
    return y


def a_hundred_millionth_off(x):
    y = x.exp()
    y.register_hook(lambda g: (1 + 1e-8) * g)
    return y


def write_through_data(x):
    y = x * 2
    y.data.clamp_(-1, 1)
    return y


def through_an_object(x):
    return TRAINER.model(x)


class Spoilt(nn.Module):
    """A linear layer with a wrong gradient, in a place where it has to be looked for."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(3, 3).double()
        self.layer.weight.register_hook(lambda g: 2 * g)

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x)


TRAINER = SimpleNamespace(model=Spoilt())
LAYERS = [Spoilt()]
CODES = torch.randn(3, dtype=torch.float64, requires_grad=True)


class Drawing(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.generator = np.random.default_rng(0)

    def forward(self, x: Tensor) -> Tensor:
        return x * float(self.generator.normal())


class Attribute(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.codes = torch.randn(3, requires_grad=True)
        self.codes.register_hook(lambda g: 2 * g)

    def forward(self, x: Tensor) -> Tensor:
        return x * self.codes


def returned_in_an_object(x):
    return x.sin(), SimpleNamespace(loss=tampered(x))


def clamped_within_its_bounds(x):
    y = x.sin()
    y.detach().clamp_(-1, 1)
    return y * 2


def on_a_leaf_of_its_own(x):
    shift = torch.zeros_like(x).requires_grad_()
    with torch.no_grad():
        shift.add_(1)
    return x * shift.detach()


class SwitchedOff(nn.Linear):
    def __init__(self) -> None:
        super().__init__(3, 3)

    def forward(self, x: Tensor) -> Tensor:
        y = super().forward(x)
        self.weight.requires_grad_(False)
        return y + super().forward(x)


class TwoNames(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("codes", torch.ones(3))
        self.second = self.codes.data

    def forward(self, x: Tensor) -> Tensor:
        y = x * self.codes
        self.second.mul_(2)
        return y


class Renormalized(nn.Linear):
    def forward(self, x: Tensor) -> Tensor:
        with torch.no_grad():
            self.weight.mul_(2)
        return super().forward(x)


RENORMALIZED = Renormalized(3, 3)


def mutant(module: str, replace: str, by: str, why: str) -> Mutant:
    return Mutant(why, f"vq_reference.testing.derivatives.{module}", replace, by, why, killed_by="test_mutants")


# what is taken out, the program that shows it, and the verdict that it should have
CASES = [
    (
        mutant("modes", "if live or op.draws:", "if op.draws:", "stops are not replayed"),
        lambda x: x + (x.round() - x).detach(),
        AGREES,
    ),
    (
        mutant("tape", "isinstance(leaf, (bool, int, float, complex))", "False", "Python numbers are not held"),
        lambda x: x * x.norm().item(),
        AGREES,
    ),
    (
        mutant("tape", "twin.stride() == value.stride()", "True", "strides are not kept"),
        lambda x: x[:, :2] * x[:, ::2].detach().contiguous(),
        AGREES,
    ),
    (
        mutant("modes", "if carries and into_a_constant:", "if False:", "a buffer written by its data stays live"),
        FirstBatch(),
        AGREES,
    ),
    (
        mutant("modes", "if self.tape.shares_a_stopped_value(tensor):", "if False:", "unseen writes are let pass"),
        write_through_data,
        CANNOT_TELL,
    ),
    (
        mutant("graph", "if isinstance(node, BackwardCFunction):", "if False:", "custom functions are not looked for"),
        lambda x: Round.apply(x),
        CANNOT_TELL,
    ),
    (
        mutant("step", "np.abs(2 * bend_narrow - bend_wide)", "0 * bend_wide", "kinks are not looked for"),
        lambda x: (x * 0).abs() + (x - X.to(x)).relu(),
        CANNOT_TELL,
    ),
    (
        mutant("ops", 'if op.name != "aten.embedding.default" or', "if True or", "padding is not held"),
        Padded(),
        AGREES,
    ),
    (
        mutant("compare", "(off <= resolution(u) * scale)", "True", "an error of any size will do"),
        lambda x: x + 1e15,
        CANNOT_TELL,
    ),
    (
        mutant("compare", "differs = ~agrees &", "differs = False &", "nothing ever differs"),
        tampered,
        DIFFERS,
    ),
    (
        mutant("compare", "np.where(probe.pull <= n * u * size, size, probe.pull)", "probe.pull", "zero has no scale"),
        lambda x: x + (1.7 - x),
        AGREES,
    ),
    (
        mutant("compare", "fits &= ~overruled(probe.autograd, slopes)", "pass", "a coarse step overrules a sharp one"),
        a_hundred_millionth_off,
        DIFFERS,
    ),
    (
        mutant("compare", "n * u * 2 * h * probe.pull", "0", "a step from zero is taken to be without rounding"),
        lambda x: DROPS_EVERYTHING(x, x, x),
        AGREES,
    ),
    (
        mutant("findings", "if undecided is None:", "if True:", "a kink whose parts cancel is taken for a difference"),
        lambda x: (x - X.to(x)).relu(),
        CANNOT_TELL,
    ),
    (
        mutant("state", "random.setstate(self._python)", "pass", "Python's random numbers go on"),
        lambda x: x * random.random(),
        AGREES,
    ),
    (
        mutant("state", "torch.set_rng_state(self._torch)", "pass", "torch's random numbers go on"),
        lambda x: x * torch.rand(3),
        AGREES,
    ),
    (
        mutant("sides", "self.tape.unfollowed(_HOOK.apply)", "_HOOK.apply", "a hook's identity is taken for a stop"),
        Hooked(),
        AGREES,
    ),
    (
        mutant("reach", "or _is_object(value):", "or False:", "objects are not looked into"),
        through_an_object,
        DIFFERS,
    ),
    (
        mutant("reach", "or isinstance(value, _CONTAINERS)", "or False", "lists are not looked into"),
        lambda x: LAYERS[0](x),
        DIFFERS,
    ),
    (
        mutant("sides", "for leaf in self._strangers(graph.other_leaves)", "for leaf in []", "leaves are overlooked"),
        lambda x: x * CODES,
        CANNOT_TELL,
    ),
    (
        mutant("sides", "if any(leaf is other for other in again)", "if True", "a leaf of one run is a trained one"),
        lambda x: x.detach().requires_grad_() * x,
        AGREES,
    ),
    (
        mutant("subject", "if live and tensor.is_leaf:", "if False:", "hooks are lost"),
        Attribute(),
        DIFFERS,
    ),
    (
        mutant("sides", "or tensor in graph]", "or True]", "what happens off the way is refused"),
        on_a_leaf_of_its_own,
        AGREES,
    ),
    (
        mutant("sides", "if id(tensor) in ours or", "if", "a parameter that is written in place passes"),
        RENORMALIZED,
        CANNOT_TELL,
    ),
    (
        mutant("modes", "if not on and", "if False and", "a parameter that is switched off passes"),
        SwitchedOff(),
        CANNOT_TELL,
    ),
    (
        mutant("state", "if address and len(tensors) > 1", "if False", "two names for one memory come apart"),
        TwoNames(),
        DIFFERS,
    ),
    (
        mutant("structure", 'hasattr(value, "__dict__")', "False", "outputs in objects are overlooked"),
        returned_in_an_object,
        DIFFERS,
    ),
    (
        mutant("state", "isinstance(generator, np.random.Generator)", "False", "NumPy's generators go on"),
        Drawing(),
        AGREES,
    ),
    (
        mutant("ops", "return torch.equal(tried, args[0])", "return False", "an idle clamp is refused"),
        clamped_within_its_bounds,
        AGREES,
    ),
]


@pytest.mark.parametrize(("mutant", "program", "verdict"), CASES, ids=[case[0].why for case in CASES])
def test_without_a_safeguard_the_answer_is_another(mutant, program, verdict):
    def answer() -> tuple[Agreement | str, str]:
        try:
            report = check_gradient(program, X)
        except Exception as error:  # a mutant that crashes is seen as well
            return type(error).__name__, str(error)
        return report.verdict, report.reason

    right = answer()
    assert right[0] is verdict
    with mutant.applied():
        assert answer() != right
    assert answer() == right
