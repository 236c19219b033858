"""What the report says, word for word."""

from __future__ import annotations

import re

import torch

from vq_reference.testing.derivatives import check_gradient
from vq_reference.testing.since import needs


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
        r"  no gradient: inputs\[1\]",
        text(report),
    ), text(report)


def test_the_report_of_a_program_that_cannot_be_told():
    report = check_gradient(lambda x: x.detach(), torch.tensor([1.5]))
    assert text(report) == "cannot tell: no output carries a gradient to inputs[0]"


@needs("hooks on .grad")
def test_a_hook_on_a_grad_is_noted_since_autograd_does_not_run_it():
    layer = torch.nn.Linear(2, 2)
    layer.weight.register_post_accumulate_grad_hook(lambda p: p.grad.mul_(2))
    report = check_gradient(layer, torch.ones(1, 2))
    assert report.notes == ("hooks on .grad, which run after autograd, are not checked: weight",)
