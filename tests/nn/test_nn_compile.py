"""The torch SimVQ under torch.compile: one graph, the same answer."""

from __future__ import annotations

import pytest
import torch

from vq_reference.nn import SimVQ
from vq_reference.testing.torch_features import needs

rotations = pytest.mark.parametrize("rotation", [True, False], ids=["rotation", "straight-through"])


@pytest.fixture(autouse=True)
def fresh_compiler():
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


def run(module, x):
    x = x.clone().requires_grad_()
    output, indices, loss = module(x)
    weights = torch.linspace(-1, 2, output.numel()).reshape(output.shape).to(output.dtype)
    gradients = torch.autograd.grad((output * weights).sum() + loss, (x, *module.parameters()))
    return output, indices, loss, *gradients


def draw(*shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(1))


@needs("compiled")
@rotations
@pytest.mark.parametrize(
    ("shape", "dtype"), [((4, 7, 6), torch.float32), ((3, 6), torch.bfloat16), ((0, 6), torch.float64)]
)
def test_the_whole_forward_and_backward_is_one_graph_with_the_same_bits(rotation, shape, dtype):
    """Traced and differentiated, but not yet rearranged: here nothing may differ at all."""
    torch.manual_seed(0)
    module = SimVQ(dim=6, codebook_size=11, rotation_trick=rotation).to(dtype)
    compiled, x = torch.compile(module, fullgraph=True, backend="aot_eager"), draw(*shape).to(dtype)
    for ours, theirs in zip(run(compiled, x), run(module, x), strict=True):
        assert torch.equal(ours, theirs)


@needs("compiled")
def test_another_number_of_tokens_and_a_token_of_nan_need_no_other_graph():
    torch.manual_seed(0)
    module = SimVQ(dim=6, codebook_size=11)
    compiled = torch.compile(module, fullgraph=True, backend="aot_eager", dynamic=True)
    for tokens in (4, 9, 25):
        x = draw(tokens, 6)
        x[1] = torch.nan
        output, indices, loss = compiled(x)
        assert torch.equal(indices, module(x)[1])
        assert output[1].isnan().all()
        assert loss.isnan()


@needs("compiler")
def test_bad_input_is_named_under_compile_too():
    compiled = torch.compile(SimVQ(dim=6, codebook_size=11), backend="aot_eager")
    with pytest.raises(ValueError, match=r"x has shape \(2, 5\)"):
        compiled(torch.ones(2, 5))


@needs("compiled")
@pytest.mark.filterwarnings("ignore:`torch.jit.script_method` is deprecated:DeprecationWarning")
def test_the_default_backend_gives_the_code_bit_for_bit_and_the_gradients_of_eager():
    """A compiler that contracted or reassociated the estimator would lose the code. Needs a C++ compiler."""
    torch.manual_seed(0)
    module = SimVQ(dim=6, codebook_size=11)
    x = 100 * draw(28, 6)
    x[0] = 0
    got, expected = run(torch.compile(module, fullgraph=True), x), run(module, x)
    assert torch.equal(got[1], expected[1])
    assert torch.equal(got[0], module.codebook[got[1]])
    # each side: a sum over 28·6 entries for the loss, two reflections of 8D + 43 for x, 28 tokens and 11 codes for the
    # transform
    roundings = 2 * (28 * 6 + 8 * 6 + 43 + 28 + 11) * 2.0**-24
    for ours, theirs in zip(got[2:], expected[2:], strict=True):
        assert (ours.double() - theirs.double()).norm() <= roundings * theirs.double().norm()
