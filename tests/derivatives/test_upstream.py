"""On the quantizers that people use: vector-quantize-pytorch, as it is installed."""

from __future__ import annotations

import pytest
import torch
import vector_quantize_pytorch as upstream
from torch import nn

from vq_reference.testing.derivatives import check_gradient
from vq_reference.testing.derivatives.shares import RIGHT, measure_shares

# tokens × dim inputs, dim × dim parameters: 1,024 and 4,096
TOKENS, DIM, CODES = 16, 64, 32


def quantizer(**arguments) -> nn.Module:
    torch.manual_seed(0)
    return upstream.SimVQ(dim=DIM, codebook_size=CODES, **arguments)


def tokens() -> torch.Tensor:
    return torch.randn(1, TOKENS, DIM, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("rotation_trick", [False, True])
def test_simvq_agrees_in_at_most_twenty_forward_passes(rotation_trick):
    module, passes = quantizer(rotation_trick=rotation_trick), []
    module.register_forward_pre_hook(lambda *_: passes.append(None))
    report = check_gradient(module, tokens())
    assert report.agrees, report
    assert report.passes == len(passes) <= 20
    # the output trains the encoder alone, the loss trains both
    assert report.no_gradient == {"output[0]": ("code_transform.weight",), "output[2]": ()}


@pytest.mark.parametrize("rotation_trick", [False, True])
def test_simvq_with_an_mlp_agrees_in_at_most_twenty_forward_passes(rotation_trick):
    """4,096 parameters and 1,024 kinks: a ReLU in the transform may ask for the smaller step."""
    mlp = nn.Sequential(nn.Linear(DIM, 32, bias=False), nn.ReLU(), nn.Linear(32, DIM, bias=False))
    report = check_gradient(quantizer(codebook_transform=mlp, rotation_trick=rotation_trick), tokens())
    assert report.agrees, report
    assert report.passes <= 20


@pytest.mark.parametrize("rotation_trick", [False, True])
def test_every_entry_of_a_small_simvqs_jacobian_agrees(rotation_trick):
    torch.manual_seed(0)
    module = upstream.SimVQ(dim=3, codebook_size=5, rotation_trick=rotation_trick)
    report = check_gradient(module, torch.randn(1, 3, 3), full=True)
    assert report.agrees, report


@pytest.mark.parametrize("rotation_trick", [False, True])
def test_a_hook_in_simvqs_way_differs(rotation_trick):
    module = quantizer(rotation_trick=rotation_trick)
    handle = module.code_transform.weight.register_hook(lambda g: 1.25 * g)
    report = check_gradient(module, tokens())
    assert report.discrepancy.of.split(" / d ")[1].startswith("code_transform.weight"), report
    handle.remove()


@pytest.mark.parametrize("rotation_trick", [False, True])
@pytest.mark.parametrize(
    "arguments",
    [{}, {"learnable_codebook": True, "ema_update": False}, {"use_cosine_sim": True}, {"heads": 2, "codebook_dim": 8}],
    ids=lambda arguments: next(iter(arguments), "ema"),
)
def test_vector_quantize_in_training_agrees(arguments, rotation_trick):
    if "learnable_codebook" in arguments and rotation_trick:
        rotation_trick = False  # upstream refuses the two together
    torch.manual_seed(0)
    module = upstream.VectorQuantize(dim=16, codebook_size=32, rotation_trick=rotation_trick, **arguments)
    before = {name: value.clone() for name, value in module.state_dict().items()}
    report = check_gradient(module, torch.randn(2, 8, 16))
    assert report.agrees, report
    assert all(torch.equal(before[name], value) for name, value in module.state_dict().items())


@pytest.mark.parametrize(
    "make",
    [
        lambda: upstream.FSQ(levels=[5, 5, 3]),
        lambda: upstream.LFQ(codebook_size=8, dim=3, entropy_loss_weight=0.1),
        lambda: upstream.ResidualVQ(dim=3, num_quantizers=3, codebook_size=8),
        lambda: upstream.ResidualSimVQ(dim=3, num_quantizers=3, codebook_size=8),
    ],
    ids=["FSQ", "LFQ", "ResidualVQ", "ResidualSimVQ"],
)
def test_its_other_quantizers_agree(make):
    torch.manual_seed(0)
    report = check_gradient(make(), torch.randn(1, 4, 3))
    assert report.agrees, report


@pytest.mark.parametrize("rotation_trick", [False, True])
def test_simvqs_loss_is_routed_as_declared(rotation_trick):
    module = quantizer(rotation_trick=rotation_trick).double()
    x = tokens().double().requires_grad_()
    shares = measure_shares(lambda: module(x)[2], [x], [module.code_transform.weight], beta=0.25)
    assert shares.pattern == RIGHT, shares
