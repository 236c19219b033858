"""Conventions of eval mode and of the loss's dtype are declared, and never defects."""

from dataclasses import replace

import pytest
import torch
from unusual_targets import Quantizer

from vq_reference.testing.adapters.declare.torch_quantizer import torch_quantizer
from vq_reference.testing.interface.errors import DeclarationContradicted
from vq_reference.testing.laws.registry import laws
from vq_reference.testing.laws.verdict import Verdict
from vq_reference.testing.run.judge import judge

LAWS = laws()
EVAL = ("call.eval", "eval.loss", "eval.halves", "eval.gradient")


class NothingInEval(Quantizer):
    """Eval hands on the bare code, without a gradient, and no loss."""

    loss_in_eval = None

    def forward(self, x):
        """Return output, indices and loss."""
        output, indices, loss = super().forward(x)
        return (output, indices, loss) if self.training else (output.detach(), indices, self.loss_in_eval)


class ZeroInEval(NothingInEval):
    """And a loss of 0."""

    loss_in_eval = torch.zeros(())


def described(kind, **declared):
    return torch_quantizer(kind, "codes", **declared)


def broken(implementation, ids):
    outcomes = [judge(LAWS[law], implementation, "default", None)[0] for law in ids]
    return {o.law: o.message for o in outcomes if o.verdict in (Verdict.BROKEN, Verdict.CRASHED)}


@pytest.mark.parametrize("kind", [NothingInEval, ZeroInEval])
def test_an_eval_mode_without_gradient_and_loss_breaks_nothing_where_it_is_declared(kind):
    implementation = described(kind, eval_estimator="none", eval_loss="zero")
    assert broken(implementation, EVAL) == {}


def test_an_eval_mode_without_gradient_and_loss_that_is_not_declared_is_a_contradiction_with_its_remedy():
    implementation = described(ZeroInEval)
    found = [judge(LAWS[law], implementation, "default", None)[1] for law in EVAL[1:]]
    assert [type(error) for error in found] == [DeclarationContradicted] * 3
    assert [error.declaration for error in found] == ["eval_loss", "eval_loss", "eval_estimator"]
    assert all("where that is meant" in str(error) for error in found)


def test_an_estimator_that_is_declared_for_eval_is_judged():
    implementation = described(ZeroInEval, eval_estimator="straight_through", eval_loss="zero")
    assert set(broken(implementation, EVAL)) == {"eval.gradient"}


def test_a_loss_of_another_dtype_breaks_its_law_unless_it_is_declared():
    class Wide(Quantizer):
        def forward(self, x):
            output, indices, loss = super().forward(x)
            return output, indices, loss.double()

    assert set(broken(described(Wide), ["form.loss"])) == {"form.loss"}
    assert broken(replace(described(Wide), loss_dtype="float64"), ["form.loss"]) == {}
