"""What the report says, word for word."""

from __future__ import annotations

import re

import numpy as np
import pytest
import torch

from vq_reference.testing.derivatives import check_gradient
from vq_reference.testing.torch_features import needs


def text(report) -> str:
    """The report with the digits of errors left out, which are the machine's."""
    return re.sub(r"± \S+", "± e", str(report))


def halved(x, y):
    z = (x * 2).round().detach() * x
    z.register_hook(lambda g: 0.5 * g)
    return z.sum(), y.detach()


def test_the_report_of_a_program_that_agrees():
    report = check_gradient(lambda x: ((x.detach() * x).sum(), x.argmax()), torch.tensor([1.0, 2.0]))
    assert re.fullmatch(
        r"agrees\n"
        r"  output\[0\] along direction 1: autograd (\S+), declared \1 ± e\n"
        r"  stopped: detach ×1, argmax ×1",
        text(report),
    ), text(report)


def test_the_report_of_a_program_that_differs():
    report = check_gradient(halved, (torch.tensor([1.5]), torch.tensor([1.0])))
    assert re.fullmatch(
        r"differs: d output\[0\] / d inputs\[0\]\[0\]: autograd 1.5, declared 3 ± e\n"
        r"  output\[0\] along direction 1: autograd \S+, declared \S+ ± e\n"
        r"  stopped: round ×1, detach ×2\n"
        r"  no gradient from any output to inputs\[1\]\n"
        r"  no gradient from output\[1\] to inputs\[0\]",
        text(report),
    ), text(report)


def test_the_report_of_a_program_that_cannot_be_told():
    report = check_gradient(lambda x: x.detach(), torch.tensor([1.5]))
    assert text(report) == "cannot tell: no output carries a gradient to inputs[0]"


def test_the_report_of_full_jacobians_is_a_line_for_each_and_holds_the_entries():
    def program(x, y):
        z = x**2
        z.register_hook(lambda g: g * torch.tensor([1.0, 0.5, 1.0]))
        return z, (y * 3, y.detach())

    x, y = torch.tensor([1.0, 2.0, 3.0]), torch.ones(2)
    report = check_gradient(program, (x, y), full=True)
    assert re.fullmatch(
        r"differs: d output\[0\]\[1\] / d inputs\[0\]\[1\]: autograd 2, declared 4 ± e\n"
        r"  d output\[0\] / d inputs\[0\]: 1 of 9 entries differ; worst d output\[0\]\[1\] / d inputs\[0\]\[1\]: .*\n"
        r"  d output\[1\]\[0\] / d inputs\[0\]: 6 entries agree; worst .*\n"
        r"  d output\[0\] / d inputs\[1\]: 6 entries agree; worst .*\n"
        r"  d output\[1\]\[0\] / d inputs\[1\]: 4 entries agree; worst .*\n"
        r"  stopped: detach ×1\n"
        r"  no gradient from output\[0\] to inputs\[1\]\n"
        r"  no gradient from output\[1\]\[0\] to inputs\[0\]\n"
        r"  no gradient from output\[1\]\[1\] to inputs\[0\], inputs\[1\]",
        text(report),
    ), text(report)
    of_z, of_y = report.jacobians[0], report.jacobians[3]
    assert (of_y.output, of_y.tensor) == ("output[1][0]", "inputs[1]")
    assert of_z.autograd.tolist() == [[2, 0, 0], [0, 2, 0], [0, 0, 6]]
    assert np.all(np.abs(of_z.declared - np.diag([2, 4, 6])) <= of_z.error)
    assert of_z.differs.tolist() == [[False] * 3, [False, True, False], [False] * 3]
    assert not of_z.undecided.any()
    assert of_z.worst == report.discrepancy


def test_a_jacobian_that_cannot_be_told_in_part_counts_those_entries():
    (jacobian,) = check_gradient(lambda x: x.relu(), torch.tensor([1.0, 0.0]), full=True).jacobians
    assert str(jacobian).startswith("d output / d inputs[0]: 1 of 4 entries cannot be told; worst d output[1]"), (
        jacobian
    )
    assert jacobian.undecided.tolist() == [[False, False], [False, True]]


def test_an_array_of_any_rank_keeps_its_shape_in_the_jacobian():
    report = check_gradient(lambda x: (x @ x.t()).sum(), torch.rand(2, 3), full=True)
    assert report.jacobians[0].autograd.shape == (2, 3)
    assert report.jacobians[0].worst.of.startswith("d output / d inputs[0][")


@pytest.mark.parametrize("full", [False, True])
def test_what_a_gradient_does_not_reach_is_said_of_each_output(full):
    """Where parts cancel, and leave nothing but rounding, as well as where there is no way."""

    def program(x, q):
        step = q - x
        return x + step / step.norm() * step.norm(), (x.sum(), q.detach()), x.sin() + 1e-6 * q

    report = check_gradient(program, (torch.tensor([0.3, 0.7]), torch.tensor([1.1, 0.2])), full=full)
    assert report.agrees, report
    assert report.no_gradient == {
        "output[0]": ("inputs[0]",),
        "output[1][0]": ("inputs[1]",),
        "output[1][1]": ("inputs[0]", "inputs[1]"),
        "output[2]": (),
    }
    assert report.unreached == ()


@needs("hooks on .grad")
def test_a_hook_on_a_grad_is_noted_since_autograd_does_not_run_it():
    layer = torch.nn.Linear(2, 2)
    layer.weight.register_post_accumulate_grad_hook(lambda p: p.grad.mul_(2))
    report = check_gradient(layer, torch.ones(1, 2))
    assert report.notes == ("hooks on .grad, which run after autograd, are not checked: weight",)
