"""Laws of the torch SimVQ, from outside: what comes back, which gradient goes where, and what is refused."""

from __future__ import annotations

import copy
import math
import pickle

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from vq_reference.nn import SimVQ
from vq_reference.testing.torch_features import needs

DTYPES = [pytest.param(torch.float16, marks=needs("float16")), torch.bfloat16, torch.float32, torch.float64]
dtypes = pytest.mark.parametrize("dtype", DTYPES, ids=str)
rotations = pytest.mark.parametrize("rotation", [True, False], ids=["rotation", "straight-through"])


def draw(seed: int, *shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def quantizer(seed: int = 0, **changed) -> SimVQ:
    torch.manual_seed(seed)
    return SimVQ(**{"dim": 6, "codebook_size": 11, **changed})


def mean_error(n: int, u: float) -> float:
    """Bound the relative error of the mean of n squares of differences: 3 roundings each, n of the sum, 1 to divide."""
    return (n + 4) * u


@dtypes
@rotations
@pytest.mark.parametrize("channel_first", [False, True])
@pytest.mark.parametrize("lead", [(5,), (2, 5), (2, 3, 5), (1, 1), (2, 1, 3, 5)])
def test_the_output_is_the_codebook_at_the_indices_bit_for_bit(dtype, rotation, channel_first, lead):
    module = quantizer(channel_first=channel_first, rotation_trick=rotation).to(dtype)
    shape = (lead[0], 6, *lead[1:]) if channel_first else (*lead, 6)
    x = (100 * draw(1, *shape)).to(dtype)
    output, indices, loss = module(x)
    codes = module.codebook[indices]
    assert (output.shape, output.dtype) == (x.shape, dtype)
    assert (indices.shape, indices.dtype) == (lead, torch.int64)
    assert loss.shape == ()
    assert torch.equal(output, codes.movedim(-1, 1) if channel_first else codes)
    assert torch.equal(output, module.indices_to_codes(indices))


@rotations
@pytest.mark.parametrize("scale", [1e-45, 1e-30, 1.0, 1e18, 3e38])
def test_the_output_is_the_code_and_its_gradient_finite_at_every_scale(rotation, scale):
    module = quantizer(rotation_trick=rotation)
    x = (draw(2, 50, 6).clamp(-1, 1).double() * scale).float().requires_grad_()
    output, indices, _ = module(x)
    assert torch.equal(output, module.codebook[indices])
    assert torch.autograd.grad(output.sum(), x)[0].isfinite().all()


def test_the_index_is_that_of_the_nearest_code():
    module, x = quantizer(), draw(3, 40, 6)
    distance = (x.double()[:, None] - module.codebook.detach().double()).square().sum(-1)
    assert torch.equal(module(x)[1], distance.argmin(1))


@dtypes
@rotations
@pytest.mark.parametrize(("w", "beta"), [(1.0, 0.25), (1000.0, 2.0), (0.5, 0.0), (0.0, 1.0)])
def test_the_loss_is_its_formula_for_either_estimator(dtype, rotation, w, beta):
    module = quantizer(rotation_trick=rotation, commitment_weight=w, input_to_quantize_commit_loss_weight=beta).to(
        dtype
    )
    x = draw(4, 7, 6).to(dtype)
    output, _, loss = module(x)
    mse = np.square(x.double().numpy() - output.detach().double().numpy()).mean()
    u = torch.finfo(loss.dtype).eps / 2
    # two halves, a weight on each and on their sum: 4 roundings more
    assert abs(loss.item() - w * (1 + beta) * mse) <= (mean_error(42, u) + 4 * u) * w * (1 + beta) * mse


@needs("float16")
def test_the_loss_of_narrow_dtypes_is_float32_where_their_squares_overflow():
    module = quantizer().half()
    loss = module(torch.full((3, 6), 60000.0, dtype=torch.float16))[2]
    assert loss.dtype == torch.float32
    assert loss.isfinite()


@rotations
@pytest.mark.parametrize(("w", "beta"), [(1.0, 0.25), (3.0, 2.0), (2.0, 0.0)])
def test_each_half_of_the_loss_trains_its_own_side(rotation, w, beta):
    """∂ℓ/∂x = 2wβ(x − q)/ND is the encoder half alone; ∂ℓ/∂E_k = 2w Σ(q − x)/ND over the tokens of k the codebook's."""
    module = quantizer(rotation_trick=rotation, commitment_weight=w, input_to_quantize_commit_loss_weight=beta).double()
    x = draw(5, 30, 6).double().requires_grad_()
    output, indices, loss = module(x)
    gx, gw = torch.autograd.grad(loss, (x, module.code_transform.weight))
    difference = (x - output).detach()
    unit = 2 * w / difference.numel()
    ge = torch.zeros(11, 6, dtype=torch.float64).index_add(0, indices, -unit * difference)
    expected_w = ge.T @ module.frozen_codebook
    u = 2.0**-53
    assert ((gx - beta * unit * difference).abs() <= 6 * u * beta * unit * difference.abs()).all()
    magnitude = torch.zeros_like(ge).index_add(0, indices, unit * difference.abs()).T @ module.frozen_codebook.abs()
    assert ((gw - expected_w).abs() <= 2 * (30 + 11 + 6) * u * magnitude).all()


@rotations
def test_the_gradient_of_the_output_reaches_the_tokens_and_never_the_codebook(rotation):
    module, x = quantizer(rotation_trick=rotation), draw(6, 9, 6).requires_grad_()
    output = module(x)[0]
    gx, gw = torch.autograd.grad(output.square().sum(), (x, module.code_transform.weight), allow_unused=True)
    assert gx.any()
    assert gw is None


def test_the_gradient_of_indices_to_codes_reaches_the_transform():
    module, g = quantizer(), draw(17, 2, 6)
    indices = torch.tensor([3, 3])
    grad = torch.autograd.grad(module.indices_to_codes(indices), module.code_transform.weight, g)[0].double()
    expected = torch.outer(g.double().sum(0), module.frozen_codebook[3].double())
    # one sum of 2 terms and one of 11 products, all but one of them zero
    magnitude = torch.outer(g.double().abs().sum(0), module.frozen_codebook[3].double().abs())
    assert ((grad - expected).abs() <= (2 + 11) * 2.0**-24 * magnitude).all()


def test_the_flag_chooses_the_estimator():
    x, g = draw(7, 9, 6).requires_grad_(), draw(8, 9, 6)
    straight, turned = (torch.autograd.grad(quantizer(rotation_trick=flag)(x)[0], x, g)[0] for flag in (False, True))
    assert torch.equal(straight, g)
    output = quantizer()(x)[0].detach().double().norm(dim=1)
    ratio = output / x.detach().double().norm(dim=1)
    got = turned.double().norm(dim=1) / g.double().norm(dim=1)
    # an orthogonal map to (8D + 43)u, as the estimator's own tests derive, times λ
    assert ((got - ratio).abs() <= (8 * 6 + 43) * 2.0**-24 * ratio).all()


@rotations
def test_many_tokens_of_one_code_sum_their_gradient_in_float32_even_in_half(rotation):
    """A bfloat16 sum of equal terms stops growing after 256 of them."""
    module = quantizer(codebook_size=1, dim=1, rotation_trick=rotation).bfloat16()
    x = torch.ones(2**13, 1, dtype=torch.bfloat16)
    output, _, loss = module(x)
    grad = torch.autograd.grad(loss, module.code_transform.weight)[0].double()
    expected = (2 * (output[0] - x[0]).double() * module.frozen_codebook[0].double()).item()
    # the gradient of E and that of W are each rounded to bfloat16 once; the sum in float32 adds n·u of it
    assert abs(grad.item() - expected) <= (2 * 2.0**-8 + 2**13 * 2.0**-24) * abs(expected)


@dtypes
@rotations
@pytest.mark.parametrize(("shape", "channel_first"), [((0, 6), False), ((2, 0, 6), False), ((0, 6, 4), True)])
def test_an_empty_batch_gives_no_tokens_and_a_loss_of_zero_with_a_graph(dtype, rotation, shape, channel_first):
    module = quantizer(rotation_trick=rotation, channel_first=channel_first).to(dtype)
    x = torch.empty(shape, dtype=dtype, requires_grad=True)
    output, indices, loss = module(x)
    assert output.shape == shape
    assert indices.shape == (shape[:1] + shape[2:] if channel_first else shape[:-1])
    assert loss == 0
    gx, gw = torch.autograd.grad(loss + output.sum(), (x, module.code_transform.weight))
    assert gx.shape == shape
    assert not gw.any()


@dtypes
@rotations
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_token_that_is_not_finite_is_seen_in_its_row_its_index_and_the_loss(dtype, rotation, value):
    module, x = quantizer(rotation_trick=rotation).to(dtype), draw(9, 5, 6).to(dtype)
    clean, clean_indices, _ = module(x)
    spoiled = x.clone()
    spoiled[3, 0] = value
    output, indices, loss = module(spoiled)
    assert loss.isnan()
    assert output[3].isnan().all()
    assert indices[3] == -1
    assert module.indices_to_codes(indices)[3].isnan().all()
    others = torch.tensor([0, 1, 2, 4])
    assert torch.equal(output[others], clean[others])
    assert torch.equal(indices[others], clean_indices[others])


def test_a_codebook_that_is_not_finite_is_seen_in_every_row():
    module = quantizer()
    module.code_transform.weight.data[0, 0] = math.nan
    output, indices, loss = module(draw(10, 5, 6))
    assert output.isnan().all()
    assert (indices == -1).all()
    assert loss.isnan()


@pytest.mark.parametrize("codes", [pytest.param("module", marks=needs("float16")), "input"])
def test_where_the_dtypes_differ_the_output_is_in_the_wider_one(codes):
    x = draw(11, 5, 6)
    module = quantizer()
    module, x = (module.half(), x) if codes == "module" else (module, x.half())
    output, indices, loss = module(x)
    assert (output.dtype, loss.dtype) == (torch.float32, torch.float32)
    assert torch.equal(output, module.codebook[indices].float())


@rotations
def test_autocast_changes_the_codebook_and_not_the_choice_among_its_codes(rotation):
    module, x = quantizer(rotation_trick=rotation), draw(12, 20, 6).requires_grad_()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        output, indices, loss = module(x)
        codebook = module.codebook
    assert torch.equal(output, codebook[indices].to(output.dtype))
    distance = (x.detach().double()[:, None] - codebook.detach().double()).square().sum(-1)
    assert torch.equal(indices, distance.argmin(1))
    (output.sum() + loss).backward()
    assert x.grad.isfinite().all()


def test_an_mlp_and_a_frozen_codebook_of_another_width_fit():
    transform = nn.Sequential(nn.Linear(4, 9), nn.ReLU(), nn.Linear(9, 6))
    module = quantizer(codebook_transform=transform, frozen_codebook_dim=4, init_fn=lambda c: 2 * c)
    output, indices, loss = module(draw(13, 5, 6))
    loss.backward()
    assert all(p.grad is not None for p in transform.parameters())
    assert module.frozen_codebook.shape == (11, 4)
    assert torch.equal(output, transform(module.frozen_codebook)[indices])


def test_an_empty_sequential_is_a_transform_and_not_a_missing_one():
    module = quantizer(codebook_transform=nn.Sequential())
    assert torch.equal(module.codebook, module.frozen_codebook)


def test_the_frozen_codebook_is_a_buffer_and_never_trained():
    module = quantizer()
    assert {name for name, _ in module.named_parameters()} == {"code_transform.weight"}
    assert not module.frozen_codebook.requires_grad


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda m: pickle.loads(pickle.dumps(m))], ids=["deepcopy", "pickle"])
def test_a_copy_answers_as_the_original(copied):
    module, x = quantizer(), draw(14, 5, 6)
    for ours, theirs in zip(module(x), copied(module)(x), strict=True):
        assert torch.equal(ours, theirs)


def test_training_and_evaluation_answer_alike():
    module, x = quantizer(), draw(15, 5, 6)
    for a, b in zip(module.train()(x), module.eval()(x), strict=True):
        assert torch.equal(a, b)


def test_forward_changes_no_state():
    module = quantizer()
    before = copy.deepcopy(module.state_dict())
    module(draw(16, 5, 6))[2].backward()
    assert all(torch.equal(before[key], value) for key, value in module.state_dict().items())


@pytest.mark.parametrize(
    ("changed", "error", "message"),
    [
        ({"dim": 0}, ValueError, "dim is 0: expected at least 1"),
        ({"dim": 2.0}, TypeError, "dim is 2.0: expected an integer"),
        ({"codebook_size": 0}, ValueError, "codebook_size is 0: expected at least 1"),
        ({"frozen_codebook_dim": -1}, ValueError, "frozen_codebook_dim is -1"),
        ({"commitment_weight": -1.0}, ValueError, "commitment_weight is -1.0: expected a finite number, 0 or more"),
        ({"commitment_weight": math.nan}, ValueError, "commitment_weight is nan"),
        ({"commitment_weight": "1"}, TypeError, "commitment_weight is '1': expected a number"),
        ({"input_to_quantize_commit_loss_weight": -0.1}, ValueError, "input_to_quantize_commit_loss_weight is -0.1"),
        ({"input_to_quantize_commit_loss_weight": math.nan}, ValueError, "input_to_quantize_commit_loss_weight is nan"),
        ({"input_to_quantize_commit_loss_weight": math.inf}, ValueError, "input_to_quantize_commit_loss_weight is inf"),
        ({"init_fn": lambda c: c[:3]}, ValueError, r"init_fn returned shape \(3, 6\): expected \(11, 6\)"),
    ],
)
def test_a_bad_argument_is_named_with_its_value_and_what_was_expected(changed, error, message):
    with pytest.raises(error, match=message):
        quantizer(**changed)


@pytest.mark.parametrize(
    ("x", "channel_first", "error", "message"),
    [
        (torch.ones(2, 5), False, ValueError, r"x has shape \(2, 5\): expected \(\.\.\., dim\) with dim = 6"),
        (torch.ones(2, 6, 5), False, ValueError, r"x has shape \(2, 6, 5\).*channel_first says"),
        (torch.ones(2, 5, 6), True, ValueError, r"expected \(B, dim, \.\.\.\) with dim = 6 \(channel_first says"),
        (torch.ones(6), False, ValueError, r"x has shape \(6,\)"),
        (torch.ones(2, 6).long(), False, TypeError, "x has dtype torch.int64: expected one of torch.float16"),
        (torch.ones(2, 6) + 0j, False, TypeError, "x has dtype torch.complex64"),
        (torch.ones(2, 6) > 0, False, TypeError, "x has dtype torch.bool"),
        ([[1.0] * 6], False, TypeError, "x is a list: expected a torch.Tensor"),
    ],
)
def test_bad_input_is_named_with_its_shape_or_dtype_and_what_was_expected(x, channel_first, error, message):
    with pytest.raises(error, match=message):
        quantizer(channel_first=channel_first)(x)


def test_a_transform_of_the_wrong_width_is_named():
    module = quantizer(codebook_transform=nn.Linear(6, 5))
    with pytest.raises(ValueError, match=r"codebook_transform returned shape \(11, 5\).*expected \(11, 6\)"):
        module(torch.ones(2, 6))


def test_indices_that_are_no_integers_or_too_large_are_refused():
    module = quantizer()
    for wrong in (torch.ones(3), torch.ones(3) > 0, torch.ones(3) + 0j):
        with pytest.raises(TypeError, match="indices has dtype"):
            module.indices_to_codes(wrong)
    with pytest.raises(IndexError):
        module.indices_to_codes(torch.tensor([12]))
