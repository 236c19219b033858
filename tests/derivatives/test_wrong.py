"""Programs that are wrong, each a one-line change of a right one: refused, with a tensor that shows it."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.autograd import Function
from torch.autograd.graph import saved_tensors_hooks
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from vq_reference.testing.derivatives import Agreement, check_gradient

BETA = 0.25
X = torch.randn(4, 3, generator=torch.Generator().manual_seed(1))
Q = torch.randn(4, 3, generator=torch.Generator().manual_seed(2))


def rotation_of(x: Tensor, q: Tensor) -> Tensor:
    """The matrices λR of arXiv 2410.06424, a token each."""
    xn, qn = functional.normalize(x, dim=-1), functional.normalize(q, dim=-1)
    w = functional.normalize(xn + qn, dim=-1)
    turn = torch.eye(x.shape[-1]) - 2 * w[:, :, None] * w[:, None] + 2 * qn[:, :, None] * xn[:, None]
    return turn * (q.norm(dim=-1) / x.norm(dim=-1))[:, None, None]


def apply(matrices: Tensor, x: Tensor) -> Tensor:
    return torch.einsum("nij,nj->ni", matrices, x)


def declared_rotation(x, q):
    return apply(rotation_of(x, q).detach(), x)


def declared_loss(x, q):
    return functional.mse_loss(q, x.detach()) + BETA * functional.mse_loss(x, q.detach())


def declared_straight_through(x, q):
    return x + (q - x).detach()


def declared_clipped_round(x, q):
    # the estimator of quantization-aware training: no gradient outside of the range
    inside = x.clamp(-0.5, 0.5)
    return inside + (inside.round() - inside).detach()


def custom(forward, backward) -> type[Function]:
    """A custom autograd.Function of x and q."""

    class Estimator(Function):
        @staticmethod
        def forward(ctx, x, q):
            ctx.save_for_backward(x, q)
            return forward(x, q)

        @staticmethod
        def backward(ctx, g):
            return backward(g, *ctx.saved_tensors)

    return Estimator


def halves(g, x, q, encoder, codebook):
    step = 2 * g * (x - q) / x.numel()
    return encoder * step, None if codebook is None else -codebook * step


def reflection_of(x, q):
    """A Householder reflection takes x to q as well, and is no rotation."""
    a = functional.normalize(functional.normalize(x, dim=-1) - functional.normalize(q, dim=-1), dim=-1)
    flip = torch.eye(x.shape[-1]) - 2 * a[:, :, None] * a[:, None]
    return flip * (q.norm(dim=-1) / x.norm(dim=-1))[:, None, None]


def turned_back(matrices, g):
    return apply(matrices.transpose(1, 2), g), None


# name: what it declares, the right backward, the wrong one
CUSTOM = {
    "rotation applied instead of transposed": (
        declared_rotation,
        lambda g, x, q: turned_back(rotation_of(x, q), g),
        lambda g, x, q: (apply(rotation_of(x, q), g), None),
    ),
    "rotation with code and input swapped": (
        declared_rotation,
        lambda g, x, q: turned_back(rotation_of(x, q), g),
        lambda g, x, q: turned_back(rotation_of(q, x), g),
    ),
    "rotation without the ratio of norms": (
        declared_rotation,
        lambda g, x, q: turned_back(rotation_of(x, q), g),
        lambda g, x, q: turned_back(rotation_of(functional.normalize(x, dim=-1), functional.normalize(q, dim=-1)), g),
    ),
    "reflection instead of the rotation": (
        declared_rotation,
        lambda g, x, q: turned_back(rotation_of(x, q), g),
        lambda g, x, q: turned_back(reflection_of(x, q), g),
    ),
    "beta on the wrong half": (
        declared_loss,
        lambda g, x, q: halves(g, x, q, BETA, 1),
        lambda g, x, q: halves(g, x, q, 1, BETA),
    ),
    "codebook half forgotten": (
        declared_loss,
        lambda g, x, q: halves(g, x, q, BETA, 1),
        lambda g, x, q: halves(g, x, q, BETA, None),
    ),
    "sum instead of mean": (
        declared_loss,
        lambda g, x, q: halves(g, x, q, BETA, 1),
        lambda g, x, q: tuple(x.numel() * half for half in halves(g, x, q, BETA, 1)),
    ),
    "straight-through that feeds the code too": (
        declared_straight_through,
        lambda g, x, q: (g, None),
        lambda g, x, q: (g, g),
    ),
    "straight-through with the sign turned": (
        declared_straight_through,
        lambda g, x, q: (g, None),
        lambda g, x, q: (-g, None),
    ),
    "rounding that passes gradients outside of its range": (
        declared_clipped_round,
        lambda g, x, q: (g * (x.abs() < 0.5), None),
        lambda g, x, q: (g, None),
    ),
}


@pytest.mark.parametrize("name", CUSTOM)
def test_a_custom_function_is_held_to_what_it_declares(name):
    declared, right, wrong = CUSTOM[name]
    for backward, verdict in ((right, Agreement.AGREES), (wrong, Agreement.DIFFERS)):
        estimator = custom(declared, backward)
        report = check_gradient(
            lambda x, q, run=estimator: run.apply(x, 2 * q).exp(), (X, Q), declared={estimator: declared}
        )
        assert report.verdict is verdict, report


class Scaled(nn.Module):
    """Two layers and a scale that is no parameter: something that each program below does one wrong thing to."""

    def __init__(self, run, right=False) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(3, 3), nn.Linear(3, 3)
        generator = torch.Generator().manual_seed(3)
        for parameter in self.parameters():
            parameter.data = torch.randn(parameter.shape, generator=generator)
        self.register_buffer("scale", torch.randn(4, 3, generator=generator))
        self.run, self.right = run, right

    def forward(self, x):
        return self.run(self, x)


def hook_on_a_tensor(m, x):
    y = m.first(x).tanh()
    y.register_hook(lambda g: g if m.right else 2 * g)
    return m.second(y)


def hook_that_clips(m, x):
    y = m.first(x).tanh()
    y.register_hook(lambda g: g if m.right else g.clamp(-0.1, 0.1))
    return m.second(y)


def hook_on_the_output(m, x):
    y = m.second(m.first(x).tanh())
    y.register_hook(lambda g: g if m.right else g * (g > 0))
    return y


def buffer_overwritten_before_backward(m, x):
    """As an EMA codebook that is updated through ``data`` after it was used: autograd saved it by reference."""
    y = m.first(x) * m.scale
    (m.scale.clone() if m.right else m.scale.data).lerp_(x.detach(), 0.2)
    return y


def buffer_overwritten_by_numpy(m, x):
    y = m.first(x) * m.scale
    values = m.scale.numpy()
    values *= 1.0 if m.right else 0.5
    return y


def saved_tensors_compressed(m, x):
    with saved_tensors_hooks(lambda t: t if m.right else t.bfloat16(), lambda t: t.to(torch.get_default_dtype())):
        return m.second(m.first(x).tanh()).exp()


def checkpoint_that_drops_again(m, x, use_reentrant):
    # without the random numbers put back, the recomputed forward drops other units than the one that gave the output
    return checkpoint(
        lambda t: functional.dropout(m.first(t).tanh(), 0.5) * t,
        x,
        use_reentrant=use_reentrant,
        preserve_rng_state=m.right,
    )


def reentrant_checkpoint_that_drops_again(m, x):
    return checkpoint_that_drops_again(m, x, True)


def checkpoint_without_reentry_that_drops_again(m, x):
    return checkpoint_that_drops_again(m, x, False)


def checkpoint_of_a_counter(m, x):
    """The recomputed forward sees the state that the first one left behind."""
    calls = [1.0]

    def part(t):
        if not m.right:
            calls[0] += 1.0
        return (m.first(t) * calls[0]).tanh()

    return checkpoint(part, x, use_reentrant=True)


TAMPERED = {
    hook_on_a_tensor: ("first", "inputs"),
    hook_that_clips: ("first", "inputs"),
    hook_on_the_output: ("first", "second", "inputs"),
    buffer_overwritten_before_backward: ("first", "inputs"),
    buffer_overwritten_by_numpy: ("first", "inputs"),
    saved_tensors_compressed: ("first", "second", "inputs"),
    # these drop others in each backward, so that an entry may be right by chance, and a direction is all there is
    reentrant_checkpoint_that_drops_again: ("first", "inputs", "output along"),
    checkpoint_without_reentry_that_drops_again: ("first", "inputs", "output along"),
    checkpoint_of_a_counter: ("first", "inputs"),
}


@pytest.mark.parametrize("full", [False, True], ids=["directions", "jacobian"])
@pytest.mark.parametrize("program", TAMPERED, ids=lambda program: program.__name__)
def test_a_backward_that_is_not_the_forwards_differs_where_it_was_tampered_with(program, full):
    right = check_gradient(Scaled(program, right=True), X, full=full)
    assert right.agrees, right
    wrong = check_gradient(Scaled(program), X, full=full)
    assert wrong.verdict is Agreement.DIFFERS, wrong
    tensor = wrong.discrepancy.of.split(" / d ")[-1]
    assert tensor.startswith(TAMPERED[program]), wrong


def test_a_hook_on_a_parameter_differs_in_that_parameter():
    module = Scaled(lambda m, x: m.second(m.first(x).tanh()))
    handle = module.first.bias.register_hook(lambda g: g * torch.tensor([1.0, 1.0, 0.0]))
    report = check_gradient(module, X)
    assert report.discrepancy.of.endswith("d first.bias[2]"), report
    handle.remove()
    assert check_gradient(module, X).agrees


def test_a_backward_hook_on_a_module_differs_before_that_module():
    module = Scaled(lambda m, x: m.second(m.first(x).tanh()))
    handle = module.second.register_full_backward_hook(lambda module, inputs, outputs: (inputs[0] * 0.5,))
    report = check_gradient(module, X)
    assert report.discrepancy.of.split(" / d ")[1].startswith(("first", "inputs")), report
    handle.remove()
    assert check_gradient(module, X).agrees


def test_one_wrong_entry_among_five_thousand_is_found_by_its_coordinates():
    x = torch.randn(5000, generator=torch.Generator().manual_seed(4))

    def program(x):
        y = x.sin()
        y.register_hook(lambda g: torch.where(torch.arange(5000) == 1234, 1.001 * g, g))
        return y

    report = check_gradient(program, x)
    assert report.discrepancy.of == "d output[1234] / d inputs[0][1234]"
    assert abs(report.discrepancy.declared - float(x[1234].double().cos())) <= report.discrepancy.error


def test_a_gradient_that_is_not_a_number_differs():
    def program(x):
        y = x * 3
        y.register_hook(lambda g: torch.where(torch.arange(3) == 1, torch.nan, g))
        return y

    report = check_gradient(program, X)
    assert report.verdict is Agreement.DIFFERS
    assert report.discrepancy.of.split(" / d ")[1] in {f"inputs[0][{n}, 1]" for n in range(4)}, report


def test_stops_in_the_wrong_place_are_consistent_and_are_not_refused():
    """What the check cannot do, said by a test: it takes the author's stops as they are."""
    swapped = check_gradient(
        lambda x, q: BETA * functional.mse_loss(q, x.detach()) + functional.mse_loss(x, q.detach()), (X, Q)
    )
    missing = check_gradient(lambda x, q: x + (q - x), (X, Q))
    assert swapped.agrees, swapped
    assert missing.agrees, missing
    assert missing.unreached == ("inputs[0]",)


@pytest.mark.parametrize("full", [False, True])
@pytest.mark.parametrize("x", [torch.randn(3, 4), torch.randn(4, 3).t()], ids=["contiguous", "transposed"])
def test_a_gradient_that_is_not_contiguous_differs_where_it_does(x, full):
    """As between a permute and a reshape."""

    def halved(x):
        y = x.t() ** 2
        y.register_hook(lambda g: g / 2)
        return y

    assert check_gradient(halved, x, full=full).verdict is Agreement.DIFFERS
