"""Adapters from plain callables: what is declared arrives at the laws, what is declared wrongly says both sides."""

import numpy as np
import pytest
import torch
from torch import nn

from vq_reference.codebook import Layer
from vq_reference.nn import SimVQ as Module
from vq_reference.simvq import SimVQ
from vq_reference.testing.adapters.declare.estimator import torch_estimator
from vq_reference.testing.adapters.declare.torch_quantizer import torch_quantizer
from vq_reference.testing.adapters.torch.codebooks import BetweenProjections, ThroughLinear
from vq_reference.testing.describe.adapter_check import check_declarations, contradictions
from vq_reference.testing.interface.errors import DeclarationContradicted
from vq_reference.testing.interface.implementation import Cotangent
from vq_reference.testing.laws.registry import laws
from vq_reference.testing.mutants.kill import first_failure

REFERENCE = SimVQ(np.array([[1.0, 0, 0], [0, 1.0, 0]]), (Layer(2 * np.eye(3)),), "straight_through")
X = np.arange(18.0).reshape(6, 3) / 8 + 0.25


class Plain(nn.Module):
    """A right quantizer that returns output, indices and loss; faults are options."""

    def __init__(self, wanted, returns=lambda output, indices, loss: (output, indices, loss)):
        super().__init__()
        self.codebook = nn.Parameter(torch.randn(wanted.codebook_size, wanted.dim))
        self.beta, self.returns = wanted.beta, returns
        self.register_buffer("calls", torch.zeros(1))

    def forward(self, x):
        flat = x.reshape(-1, x.shape[-1])
        indices = torch.cdist(flat, self.codebook, compute_mode="donot_use_mm_for_euclid_dist").argmin(-1)
        q = self.codebook[indices].reshape(x.shape)
        loss = (q - x.detach()).square().mean() + self.beta * (q.detach() - x).square().mean()
        return self.returns(q.detach() + (x - x.detach()), indices.reshape(x.shape[:-1]), loss)


def plain(returns=lambda *three: three, **declared):
    return torch_quantizer(lambda wanted: Plain(wanted, returns), "codebook", **declared)


def test_the_common_case_is_three_lines_and_contradicts_nothing():
    made = torch_quantizer(Plain, "codebook")
    check_declarations(made)
    assert contradictions(made) == []
    assert {"indices", "loss", "codebook_gradient", "leading", "eval", "estimator:straight_through"} < made.capabilities


def test_statistics_that_are_wider_than_the_codes_stay_so():
    class Counting(Plain):
        """Its counts are float64, whatever its codes are."""

        def __init__(self, wanted):
            super().__init__(wanted)
            self.register_buffer("counts", torch.zeros(wanted.codebook_size, dtype=torch.float64))

    for dtype, counts in (("float32", torch.float64), ("float64", torch.float64), ("bfloat16", torch.bfloat16)):
        layer = torch_quantizer(Counting, "codebook", dtype=dtype).build(REFERENCE)
        assert layer.module.codebook.dtype is getattr(torch, dtype)
        assert layer.module.counts.dtype is counts


@pytest.mark.parametrize(
    ("returns", "declared"),
    [
        (lambda o, i, s: {"z": o, "more": {"codes": i}, "s": s},
         {"output_at": "z", "indices_at": ("more", "codes"), "loss_at": "s"}),
        (lambda o, i, s: (o, s, (None, i)), {"loss_at": 1, "indices_at": (2, 1)}),
        (lambda o, i, s: (o, i.reshape(-1), s.reshape(1)), {"indices": "(...)", "loss_shape": (1,)}),
        (lambda o, i, s: (o, i.reshape(1, -1, 1), s), {"indices": "1 (...) 1"}),
        (lambda o, i, s: o, {"output_at": (), "indices_at": None, "loss_at": None}),
        (lambda o, i, s: (o, i, 2 * s), {"loss_weights": lambda wanted: (2.0, 2 * wanted.beta)}),
        (lambda o, i, s: (o, i, o.numel() * s), {"loss_reduction": "sum"}),
    ],
)  # fmt: skip
def test_what_lies_elsewhere_is_found_where_it_is_declared(returns, declared):
    made = plain(returns, **declared)
    assert contradictions(made) == []
    usual = plain().build(REFERENCE)(X)
    answer = made.build(REFERENCE)(X)
    np.testing.assert_array_equal(answer.output, usual.output)
    if "indices" in made.capabilities:
        np.testing.assert_array_equal(answer.indices, usual.indices)


@pytest.mark.parametrize(
    ("returns", "declared", "declaration"),
    [
        (lambda *r: r, {"indices_at": 2, "loss_at": None}, "indices_at"),
        (lambda *r: r, {"output_at": 1}, "output_at"),
        (lambda *r: r, {"loss_at": 3}, "loss_at"),
        (lambda *r: r, {"loss_at": (2, "total")}, "loss_at"),
        (lambda o, i, s: (o, i.reshape(-1), s), {}, "indices"),
        (lambda o, i, s: (o.transpose(0, 1), i, s), {}, "output"),
        (lambda o, i, s: (o.flip(0), i, s), {"x": "B T D"}, "output and indices"),
        (lambda o, i, s: (o, i, s), {"loss_shape": (1,)}, "loss_shape"),
        (lambda o, i, s: (o.double(), i, s), {}, "dtype"),
        (lambda o, i, s: (o, i, s), {"metric": "cosine"}, "metric"),
    ],
)
def test_a_wrong_declaration_is_an_error_of_its_own_with_both_sides(returns, declared, declaration):
    with pytest.raises(DeclarationContradicted) as caught:
        check_declarations(plain(returns, **declared))
    assert caught.value.declaration == declaration
    assert caught.value.declared in str(caught.value)
    assert caught.value.found in str(caught.value)


class Counts(Plain):
    """Counts its calls, and gives no loss in eval."""

    def forward(self, x):
        self.calls += 1
        output, indices, loss = super().forward(x)
        return output, indices, loss if self.training else torch.zeros(())


def test_an_eval_mode_that_differs_and_a_state_that_changes_are_contradictions():
    made = torch_quantizer(Counts, "codebook")
    assert {c.declaration for c in contradictions(made)} == {"eval_loss", "state_changes"}
    assert contradictions(torch_quantizer(Counts, "codebook", eval_loss="zero", state_changes=["calls"])) == []


@pytest.mark.parametrize("declared", [(0.25, 1.0), (1.0, 1.0), (0.0, 0.25)])
def test_wrong_weights_of_the_loss_are_named_but_left_to_the_laws(declared):
    made = plain(loss_weights=declared)
    check_declarations(made)
    assert "loss_weights" in {c.declaration for c in contradictions(made)}


def test_a_wrong_estimator_is_named_but_left_to_the_laws():
    made = plain(estimator="rotation")
    check_declarations(made)
    assert [(c.declared, c.found) for c in contradictions(made)] == [("'rotation'", "'straight_through'")]


class Unregistered(Plain):
    """Codes that no optimizer and no state_dict knows, and the registered ones by another name."""

    def __init__(self, *given):
        super().__init__(*given)
        self.loose = self.codebook.detach().clone()

    @property
    def viewed(self):
        return self.codebook[:, :]


def test_a_codebook_that_is_neither_a_parameter_nor_a_buffer_is_refused_and_a_view_of_one_is_not():
    with pytest.raises(
        DeclarationContradicted, match=r"'loose', found: .* neither a parameter nor a buffer .*register"
    ):
        torch_quantizer(Unregistered, "loose")
    assert torch_quantizer(Unregistered, "viewed").build(REFERENCE).codes.shape == (2, 3)


def test_a_codebook_that_is_not_there_is_refused_with_those_that_are():
    with pytest.raises(DeclarationContradicted, match=r"embedding.*there are codebook \(3, 4\)"):
        torch_quantizer(Plain, "embedding")
    with pytest.raises(DeclarationContradicted, match=r"leave out \.T"):
        torch_quantizer(Plain, "codebook.T")


def test_an_instance_has_fixed_sizes_and_is_left_as_it_is():
    module = Plain(type("wanted", (), {"dim": 3, "codebook_size": 2, "beta": 0.25}))
    before = module.codebook.detach().clone()
    made = torch_quantizer(module, "codebook", loss_weights=(1.0, 0.25))
    made.build(REFERENCE)(X, [Cotangent(X, 1.0)])
    assert made.sizes == (3, 2)
    assert torch.equal(module.codebook, before)
    with pytest.raises(ValueError, match="loss_weights is not given for an instance"):
        torch_quantizer(module, "codebook")


def test_codes_through_a_linear_are_the_wanted_ones():
    made = torch_quantizer(
        lambda wanted: Module(wanted.dim, wanted.codebook_size, rotation_trick=False), ThroughLinear(
            "frozen_codebook", "code_transform"), loss_weights=(1.0, 0.25), decode="indices_to_codes",
    )  # fmt: skip
    layer = made.build(REFERENCE)
    np.testing.assert_array_equal(layer.decode(np.array([0, 1])), REFERENCE.codebook)
    assert not np.array_equal(layer.state()["code_transform.weight"], np.eye(3))
    assert contradictions(made) == []


class Projected(nn.Module):
    """Plain between two linear projections; `skip` leaves the second out."""

    def __init__(self, wanted, skip):
        super().__init__()
        self.entering, self.leaving = nn.Linear(wanted.dim, wanted.dim), nn.Linear(wanted.dim, wanted.dim)
        self.inner, self.skip = Plain(wanted), skip

    def forward(self, x):
        output, indices, loss = self.inner(self.entering(x))
        return output if self.skip else self.leaving(output), indices, loss


def test_projections_on_the_way_are_exact_and_one_left_out_shows():
    codebook = BetweenProjections("entering", "inner.codebook", "leaving")
    right, wrong = (torch_quantizer(lambda w, s=s: Projected(w, s), codebook) for s in (False, True))
    answer = right.build(REFERENCE)(X)
    np.testing.assert_array_equal(answer.output, REFERENCE.codebook[answer.indices])
    assert contradictions(right) == []
    assert not np.array_equal(wrong.build(REFERENCE)(X).output, answer.output)


def test_the_gradient_at_codes_between_projections_is_that_at_the_effective_ones():
    """A codebook half that is stopped shows there, too."""
    codebook = BetweenProjections("entering", "inner.codebook", "leaving")
    made, plain = torch_quantizer(lambda w: Projected(w, False), codebook), torch_quantizer(Plain, "codebook")
    start = [Cotangent(np.zeros_like(X), 1.0)]
    between, alone = (each.build(REFERENCE)(X, start).gradients[0].codebook for each in (made, plain))
    assert alone.any()
    np.testing.assert_array_equal(between, alone)


def test_a_bare_estimator_gets_each_token_with_its_nearest_code():
    made = torch_estimator(lambda x, q: x + (q - x).detach(), "straight_through", x="B D ...")
    answer = made.build(REFERENCE)(X, [Cotangent(X, 0.0)])
    np.testing.assert_array_equal(answer.indices, REFERENCE.forward(X).indices)
    np.testing.assert_array_equal(answer.gradients[0].x, X)
    assert contradictions(made) == []


class UnitCodes(nn.Module):
    """A cosine quantizer whose output is a unit code; `raw` decodes to codes of any length, which is wrong."""

    def __init__(self, wanted):
        super().__init__()
        self.codebook = nn.Parameter(torch.randn(wanted.codebook_size, wanted.dim))

    def forward(self, x):
        unit = nn.functional.normalize(self.codebook, dim=-1)
        indices = (nn.functional.normalize(x, dim=-1) @ unit.T).argmax(-1)
        return unit[indices], indices

    def decode(self, indices):
        return nn.functional.normalize(self.codebook[indices], dim=-1)

    def raw(self, indices):
        return self.codebook[indices]


@pytest.mark.parametrize(("decode", "right"), [("decode", True), ("raw", False)])
def test_unit_codes_are_what_indices_decode_to(decode, right):
    made = torch_quantizer(UnitCodes, "codebook", loss_at=None, metric="cosine", unit_codes=True, decode=decode)
    failure = first_failure(laws()["decode.output"], made)
    assert (failure is None) is right
