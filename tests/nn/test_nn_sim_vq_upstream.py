"""The torch SimVQ beside upstream's, the installed vector-quantize-pytorch: one can take the other's place."""

from __future__ import annotations

import inspect

import pytest
import torch
from torch import nn
from vector_quantize_pytorch import SimVQ as Upstream

from vq_reference.nn import SimVQ


def mlp() -> nn.Module:
    return nn.Sequential(nn.Linear(4, 7), nn.ReLU(), nn.Linear(7, 6))


VARIANTS = [
    {},
    {"rotation_trick": False},
    {"channel_first": True},
    {"input_to_quantize_commit_loss_weight": 2.0, "commitment_weight": 3.0},
    {"frozen_codebook_dim": 4},
]
variants = pytest.mark.parametrize("changed", VARIANTS, ids=lambda v: ",".join(v) or "default")


def both(**changed) -> tuple[SimVQ, Upstream]:
    """Build the two from the same seed."""
    torch.manual_seed(0)
    ours = SimVQ(dim=6, codebook_size=11, **changed)
    torch.manual_seed(0)
    return ours, Upstream(dim=6, codebook_size=11, **changed)


def run(module: nn.Module, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
    x = x.clone().requires_grad_()
    output, indices, loss = module(x)
    weights = torch.linspace(-1, 2, output.numel()).reshape(output.shape)
    gradients = torch.autograd.grad((output * weights).sum() + loss, (x, *module.code_transform.parameters()))
    return output, loss, *gradients, indices


def test_the_constructors_take_the_same_arguments_in_the_same_order():
    ours, theirs = (list(inspect.signature(c.__init__).parameters) for c in (SimVQ, Upstream))
    assert ours == theirs
    for name, parameter in inspect.signature(Upstream.__init__).parameters.items():
        default = inspect.signature(SimVQ.__init__).parameters[name].default
        assert default == parameter.default or name == "init_fn"


@variants
def test_the_same_seed_gives_the_same_parameters(changed):
    ours, theirs = both(**changed)
    assert ours.state_dict().keys() == theirs.state_dict().keys()
    assert all(torch.equal(value, theirs.state_dict()[key]) for key, value in ours.state_dict().items())


@pytest.mark.parametrize("transform", [lambda: None, mlp], ids=["linear", "mlp"])
def test_the_state_dict_exchanges_both_ways(transform):
    changed = {"dim": 6, "codebook_size": 11, "frozen_codebook_dim": 4}
    for source, target in ((SimVQ, Upstream), (Upstream, SimVQ)):
        one = source(codebook_transform=transform(), **changed)
        other = target(codebook_transform=transform(), **changed)
        assert other.load_state_dict(one.state_dict(), strict=True)
        assert torch.equal(other.codebook, one.codebook)


@variants
def test_output_indices_loss_and_gradients_agree_in_the_regular_range(changed):
    ours, theirs = (module.double() for module in both(**changed))
    x = torch.randn(3, 6, 5, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    x = x if changed.get("channel_first") else x.movedim(1, 2)
    got, expected = run(ours, x), run(theirs, x)
    assert torch.equal(got[-1], expected[-1])
    near_opposite = (nn.functional.cosine_similarity(x, got[0], dim=1 if changed.get("channel_first") else -1)).min()
    # roundings: 15 tokens × 6 entries, codes summed over tokens, two rotations of D = 6; upstream's own formula
    # magnifies by 1/‖x̂ + q̂‖ = 1/√(2 + 2cos)
    roundings = (90 + 15 + 2 * (8 * 6 + 43)) * (1 + 1 / (2 + 2 * near_opposite).sqrt()) * 2.0**-53
    for a, b in zip(got[:-1], expected[:-1], strict=True):
        assert (a - b).norm() <= roundings * max(b.norm(), 1)


@pytest.mark.parametrize("channel_first", [False, True])
def test_indices_to_codes_agrees(channel_first):
    ours, theirs = both(channel_first=channel_first)
    indices = torch.arange(10).reshape(2, 5)
    got, expected = ours.indices_to_codes(indices), theirs.indices_to_codes(indices)
    # upstream transforms the chosen rows, we choose among the transformed: two sums of 6 products
    magnitude = (ours.frozen_codebook.abs() @ ours.code_transform.weight.abs().T)[indices]
    magnitude = magnitude.movedim(-1, 1) if channel_first else magnitude
    assert got.shape == expected.shape
    assert ((got - expected).abs() <= 2 * 6 * 2.0**-24 * magnitude).all()
