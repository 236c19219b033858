"""Autograd against replay: the module's gradients are the differences of its own run with its stops held.

Neither the oracle nor a closed form has a part in it: `test_derivatives.py` has those, and `test_gradient_bugs.py` both
of them on releases with a bug in their gradient.
"""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from vq_reference.nn import SimVQ
from vq_reference.testing.derivatives import check_gradient
from vq_reference.testing.derivatives.shares import RIGHT, measure_shares

DIM, CODES, BETA = 3, 5, 0.25
TRANSFORMS = {
    "linear": lambda: nn.Linear(DIM, DIM, bias=False),
    "mlp": lambda: nn.Sequential(nn.Linear(DIM, 6), nn.ReLU(), nn.Linear(6, DIM)),
}
HALVES = {
    "codebook half": {"input_to_quantize_commit_loss_weight": 0.0},
    "both halves": {"input_to_quantize_commit_loss_weight": BETA, "commitment_weight": 3.0},
    "encoder half": {"input_to_quantize_commit_loss_weight": BETA},  # of codes that are not trained
}


@pytest.mark.parametrize("full", [False, True], ids=["directions", "jacobian"])
@pytest.mark.parametrize("rotation_trick", [False, True], ids=["straight_through", "rotation"])
@pytest.mark.parametrize("transform", TRANSFORMS)
@pytest.mark.parametrize("halves", HALVES)
def test_autograd_agrees_with_the_replayed_module(halves, transform, rotation_trick, full):
    torch.manual_seed(0)
    module = SimVQ(DIM, CODES, TRANSFORMS[transform](), rotation_trick=rotation_trick, **HALVES[halves])
    if halves == "encoder half":
        module.code_transform.requires_grad_(False)
    report = check_gradient(module, torch.randn(1, 4, DIM), full=full)
    assert report.agrees, report
    assert ("inputs[0]" in report.no_gradient["output[2]"]) == (halves == "codebook half")
    parameters = [name for name, parameter in module.named_parameters() if parameter.requires_grad]
    assert bool(parameters) == (halves != "encoder half")
    assert list(report.no_gradient["output[0]"]) == parameters
    assert not set(parameters) & set(report.no_gradient["output[2]"])


@pytest.mark.parametrize("rotation_trick", [False, True], ids=["straight_through", "rotation"])
@pytest.mark.parametrize("transform", TRANSFORMS)
def test_a_gradient_that_is_scaled_on_its_way_differs(transform, rotation_trick):
    torch.manual_seed(0)
    module = SimVQ(DIM, CODES, TRANSFORMS[transform](), rotation_trick=rotation_trick)
    weight = next(module.code_transform.parameters())
    weight.register_hook(lambda g: (1 + 2.0**-20) * g)
    report = check_gradient(module, torch.randn(1, 4, DIM))
    assert report.discrepancy.of.split(" / d ")[1].startswith("code_transform"), report


@pytest.mark.parametrize("rotation_trick", [False, True], ids=["straight_through", "rotation"])
@pytest.mark.parametrize("transform", TRANSFORMS)
def test_the_loss_is_routed_as_declared(transform, rotation_trick):
    torch.manual_seed(0)
    module = SimVQ(DIM, CODES, TRANSFORMS[transform](), rotation_trick=rotation_trick).double()
    x: Tensor = torch.randn(1, 4, DIM).double().requires_grad_()
    shares = measure_shares(lambda: module(x)[2], [x], list(module.parameters()), beta=BETA)
    assert shares.pattern == RIGHT, shares
