"""Autograd against replay: the module's gradients are the differences of its own run with its stops held.

Neither the oracle nor a closed form has a part in it: `test_derivatives.py` has those. On the releases of
vector-quantize-pytorch about issue 177 (no loss in 1.20.0, half of it from 1.20.1, first good 1.20.11), a loss that
hands the encoder nothing is consistent with its own stops as well: what tells is whom the gradient reaches, and the
shares.
"""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
import torch
from torch import Tensor, nn

from vq_reference.nn import SimVQ
from vq_reference.testing.derivatives import check_gradient
from vq_reference.testing.derivatives.shares import RIGHT, measure_shares, patterns
from vq_reference.testing.releases import ReleaseUnavailable, fetch

DIM, CODES, BETA = 3, 5, 0.25
TRANSFORMS = {
    "linear": lambda: nn.Linear(DIM, DIM, bias=False),
    "mlp": lambda: nn.Sequential(nn.Linear(DIM, 6), nn.ReLU(), nn.Linear(6, DIM)),
}
HALVES = {
    "codebook half": {"input_to_quantize_commit_loss_weight": 0.0},
    "both halves": {"input_to_quantize_commit_loss_weight": BETA, "commitment_weight": 3.0},
}
MISSING = next(name for name in patterns(BETA) if "issue 177" in name)

CHILD = """
import json, torch
from vector_quantize_pytorch import SimVQ
from vq_reference.testing.derivatives import check_gradient
from vq_reference.testing.derivatives.shares import measure_shares

torch.manual_seed(0)
module, x = SimVQ(dim=8, codebook_size=16, rotation_trick=True).double(), torch.randn(2, 5, 8).double().requires_grad_()
whole, loss = check_gradient(module, x), check_gradient(lambda x: module(x)[2], x)
(weight,) = module.parameters()
shares = measure_shares(lambda: module(x)[2], [x], [weight], beta=0.25)
print(json.dumps([whole.agrees, loss.agrees, loss.no_gradient, shares.pattern]))
"""


@pytest.mark.parametrize("full", [False, True], ids=["directions", "jacobian"])
@pytest.mark.parametrize("rotation_trick", [False, True], ids=["straight_through", "rotation"])
@pytest.mark.parametrize("transform", TRANSFORMS)
@pytest.mark.parametrize("halves", HALVES)
def test_autograd_agrees_with_the_replayed_module(halves, transform, rotation_trick, full):
    torch.manual_seed(0)
    module = SimVQ(DIM, CODES, TRANSFORMS[transform](), rotation_trick=rotation_trick, **HALVES[halves])
    x = torch.randn(1, 4, DIM)
    report = check_gradient(module, x, full=full)
    assert report.agrees, report
    of_loss = check_gradient(lambda x: module(x)[2], x, full=full)
    assert of_loss.agrees, of_loss
    assert ("inputs[0]" in of_loss.no_gradient) == (halves == "codebook half")


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


@pytest.mark.parametrize(
    ("version", "no_gradient", "pattern"),
    [("1.20.1", ["inputs[0]"], MISSING), ("1.20.10", ["inputs[0]"], MISSING), ("1.20.11", [], RIGHT)],
)
def test_the_releases_about_issue_177_are_told_apart_by_whom_the_gradient_reaches(version, no_gradient, pattern):
    try:
        release = fetch(f"vector-quantize-pytorch=={version}")
    except ReleaseUnavailable as reason:
        pytest.skip(f"release not available: {reason}")
    command = [sys.executable, "-c", CHILD]
    done = subprocess.run(command, env=release.environment(), capture_output=True, encoding="utf-8")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == [True, True, no_gradient, pattern]
