"""Right code that is written in an unusual way breaks no law, and conventions are declared, never defects."""

from dataclasses import replace

import pytest
import torch
from torch import nn

from vq_reference.testing.adapters.bare import torch_estimator
from vq_reference.testing.adapters.declaration import DeclarationContradicted
from vq_reference.testing.adapters.quantizer import torch_quantizer
from vq_reference.testing.catalogue import laws
from vq_reference.testing.judge import judge
from vq_reference.testing.verdict import Verdict

LAWS = laws()
EVAL = ("call.eval", "eval.loss", "eval.halves", "eval.gradient")


class Quantizer(nn.Module):
    """Nearest code by the expanded square in the tokens' dtype, and what a subclass does with it."""

    def __init__(self, dim, codebook_size, beta):
        super().__init__()
        self.codebook = nn.Parameter(torch.randn(codebook_size, dim))
        self.beta = beta

    def forward(self, x):
        """Return output, indices and loss."""
        flat, codes = x.reshape(-1, x.shape[-1]), self.codebook
        squares = flat.square().sum(1, keepdim=True) - 2 * flat @ codes.T + codes.square().sum(1)
        indices = squares.detach().argmin(dim=1)
        q = codes[indices].reshape(x.shape)
        stopped, other = (x.detach().float() - q.float()), (x.float() - q.detach().float())
        loss = stopped.square().mean() + self.beta * other.square().mean()
        return self.handed_on(x, q.detach()), indices.reshape(x.shape[:-1]), loss

    def handed_on(self, x, q):
        """Return the output."""
        return x + (q - x).detach()


class SumFirst(Quantizer):
    """(q + x) − x, from the left."""

    def handed_on(self, x, q):
        """Return the output."""
        return (q + x) - x.detach()


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
    return torch_quantizer(
        lambda wanted: kind(wanted.dim, wanted.codebook_size, wanted.beta),
        "codebook",
        loss_weights=lambda wanted: (1.0, wanted.beta),
        **declared,
    )


def broken(implementation, ids):
    outcomes = [judge(LAWS[law], implementation, "default", None)[0] for law in ids]
    return {o.law: o.message for o in outcomes if o.verdict in (Verdict.BROKEN, Verdict.CRASHED)}


def musts(implementation):
    return [law.id for law in LAWS.values() if law.level == "must" and not implementation.lacks(law.needs)]


def test_a_straight_through_sum_in_another_order_breaks_no_must_law():
    """(q + x) − x rounds otherwise than x + (q − x), and is as right."""
    implementation = described(SumFirst)
    assert broken(implementation, musts(implementation)) == {}
    assert (
        broken(torch_estimator(lambda x, q: (q + x) - x.detach(), "straight_through"), ["straight_through.output"])
        == {}
    )


def test_distances_in_bfloat16_break_no_must_law_of_a_layer_in_bfloat16():
    """The bound of the choice has the unit roundoff of the declared dtype: what it cannot tell apart is no defect."""
    implementation = described(SumFirst, dtype="bfloat16")
    assert broken(implementation, musts(implementation)) == {}


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
    class Wide(SumFirst):
        def forward(self, x):
            output, indices, loss = super().forward(x)
            return output, indices, loss.double()

    assert set(broken(described(Wide), ["form.loss"])) == {"form.loss"}
    assert broken(replace(described(Wide), loss_dtype="float64"), ["form.loss"]) == {}
