"""The torch border: how a call arrives at the module, and what it is told about what came back."""

import numpy as np
import pytest
import torch

from vq_reference.codebook import Layer
from vq_reference.nn import SimVQ as Module
from vq_reference.simvq import SimVQ
from vq_reference.testing.adapters.declare.torch_quantizer import torch_quantizer
from vq_reference.testing.interface.implementation import Call, Cotangent
from vq_reference.testing.laws.assertions import assert_within
from vq_reference.testing.laws.bounds.bounds import gamma
from vq_reference.testing.laws.registry import laws
from vq_reference.testing.laws.verdict import Verdict
from vq_reference.testing.run.judge import judge
from vq_reference.testing.run.targets import implementation_of

REFERENCE = SimVQ(np.array([[1.0, 0, 0], [0, 1.0, 0]]), (Layer(2 * np.eye(3)),), "rotation")
X = np.arange(18.0).reshape(6, 3) / 8 + 0.25
COTANGENT = Cotangent(np.arange(18.0).reshape(6, 3) - 9, 1.0)
OURS = ("reference.SimVQ", "reference.SimVQ[channel_first]")


def built(target):
    layer = implementation_of(target).build(REFERENCE)
    entered = []
    layer.module.register_forward_pre_hook(lambda module, inputs: entered.append(inputs[0]))
    return layer, entered


@pytest.mark.parametrize("target", OURS)
@pytest.mark.parametrize("leading", [(6,), (2, 3), (1, 3, 2), (6, 1, 1)])
def test_leading_dimensions_reach_the_module_and_tokens_come_back_in_order(target, leading):
    layer, entered = built(target)
    usual, arranged = (layer(X, [COTANGENT], how) for how in (Call(), Call(leading=leading)))
    assert arranged.form.indices_shape == arranged.form.indices_expected == leading
    assert entered[-1].shape == arranged.form.output_expected == arranged.form.output_shape
    for a, b in zip(
        (usual.output, usual.indices, *usual.gradients[0][:2]),
        (arranged.output, arranged.indices, *arranged.gradients[0][:2]),
        strict=True,
    ):
        # a matrix product of another shape may sum in another order: D terms, each rounded, on either side
        size = np.abs(a).max()
        assert_within("answer", b, a, 2 * gamma(2 * a.shape[-1] + 8, 2.0**-24) * size)


@pytest.mark.parametrize("target", OURS)
def test_a_strided_input_has_the_same_values_in_memory_with_gaps(target):
    layer, entered = built(target)
    layer(X)
    layer(X, how=Call(memory="strided"))
    contiguous, strided = entered
    assert contiguous.is_contiguous()
    assert not strided.is_contiguous()
    assert torch.equal(contiguous, strided)


@pytest.mark.parametrize("target", OURS)
def test_an_expanded_input_is_one_token_in_memory(target):
    layer, entered = built(target)
    answer = layer(np.repeat(X[:1], 6, axis=0), [COTANGENT], Call(memory="expanded"))
    assert entered[0].untyped_storage().nbytes() == 3 * entered[0].element_size()
    np.testing.assert_array_equal(answer.gradients[0].x, layer(np.repeat(X[:1], 6, axis=0), [COTANGENT]).gradients[0].x)


def test_an_expanded_input_of_different_tokens_is_refused():
    layer, _ = built("reference.SimVQ")
    with pytest.raises(ValueError, match="tokens of x differ"):
        layer(X, how=Call(memory="expanded"))


def test_leading_dimensions_of_another_number_of_tokens_are_refused():
    layer, _ = built("reference.SimVQ")
    with pytest.raises(ValueError, match=r"leading is \(5,\)"):
        layer(X, how=Call(leading=(5,)))


@pytest.mark.parametrize(
    ("gradient", "asks", "enabled"), [("asked", True, True), ("not asked", False, True), ("no_grad", False, False)]
)
def test_the_input_asks_for_a_gradient_as_the_call_says(gradient, asks, enabled):
    layer, entered = built("reference.SimVQ")
    modes = []
    layer.module.register_forward_pre_hook(lambda *_: modes.append(torch.is_grad_enabled()))
    answer = layer(X, [COTANGENT], Call(gradient=gradient))
    assert (entered[0].requires_grad, modes[0]) == (asks, enabled)
    assert (answer.gradients[0].x is not None) == asks
    assert (answer.gradients[0].codebook is not None) == enabled


def test_the_mode_reaches_the_module():
    layer, _ = built("reference.SimVQ")
    layer(X, how=Call(training=False))
    assert not layer.module.training
    layer(X)
    assert layer.module.training


def test_decode_gives_the_tokens_of_the_codes():
    for target in OURS:
        layer, _ = built(target)
        np.testing.assert_array_equal(layer.decode(np.array([1, 0, 1])), REFERENCE.codebook[[1, 0, 1]])


def test_the_state_is_a_copy_of_every_parameter_and_buffer():
    layer, _ = built("reference.SimVQ")
    state = layer.state()
    assert set(state) == {"frozen_codebook", "code_transform.weight"}
    state["frozen_codebook"][:] = 7
    np.testing.assert_array_equal(layer.state()["frozen_codebook"], REFERENCE.frozen_codebook)


class HandsOutItsCodes(torch.nn.Module):
    """Returns a view of its own codebook, and one value expanded over all tokens."""

    def __init__(self):
        super().__init__()
        self.register_buffer("codes", torch.eye(3))

    def forward(self, x):
        return {"output": self.codes[: len(x)], "of": [self.codes.new_ones(1).expand(5), torch.arange(3)]}


def test_overwriting_what_was_returned_reaches_a_codebook_that_was_handed_out():
    layer, _ = built("reference.SimVQ")
    before = layer.state()
    layer(X)
    layer.overwrite_returned()
    for name, values in before.items():
        np.testing.assert_array_equal(layer.state()[name], values)
    layer.module = HandsOutItsCodes()
    layer._last = layer.module(torch.zeros(2, 3))
    layer.overwrite_returned()
    assert np.isnan(layer.state()["codes"][:2]).all()
    assert layer._last["of"][0].isnan().all()
    assert layer._last["of"][1].tolist() == [-1, -2, -3]


def test_frozen_codes_that_ask_for_no_gradient_get_none_and_those_that_do_show_it():
    layer, _ = built("reference.SimVQ")
    assert layer(X, [COTANGENT]).gradients[0].frozen is None
    layer.frozen.requires_grad_()
    assert layer(X, [COTANGENT]).gradients[0].frozen.shape == (2, 3)


def test_an_output_of_another_shape_than_declared_comes_as_it_is():
    layer, _ = built("reference.SimVQ")
    usual = layer.read
    layer.read = lambda returned: usual(returned)._replace(output=returned[0].transpose(0, 1))
    answer = layer(X)
    assert answer.output.shape == (3, 2, 3)
    assert answer.form.output_shape != answer.form.output_expected


def test_an_output_that_lies_otherwise_than_the_input_has_the_shape_of_its_declared_layout():
    """Channels last in, channels first out, as an autoencoder of images may have it."""

    def arranged(module, x):
        output, indices, loss = module(x)
        return output.permute(0, 3, 1, 2), indices, loss

    made = torch_quantizer(
        lambda wanted: Module(dim=wanted.dim, codebook_size=wanted.codebook_size), "frozen_codebook",
        x="B H W D", output="B D H W", call=arranged,
    )  # fmt: skip
    assert judge(laws()["form.output"], made, "quick", None)[0].verdict is Verdict.HELD
