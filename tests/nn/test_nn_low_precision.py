"""Narrow tokens: float32 inside, their own dtype outside, and the right code."""

import numpy as np
import pytest
import torch

from vq_reference import nearest
from vq_reference.nn import ResidualQuantizer, VectorQuantize

DIM, SIZE, COUNT = 8, 32, 64
NARROW = [torch.float16, torch.bfloat16]


def numpy(tensor):
    return tensor.detach().double().numpy().copy()


def draw(dtype):
    return torch.randn(COUNT, DIM, generator=torch.Generator().manual_seed(1)).to(dtype)


def build(**arguments):
    torch.manual_seed(0)
    return VectorQuantize(DIM, SIZE, **arguments)


@pytest.mark.parametrize("dtype", NARROW)
@pytest.mark.parametrize("half_module", [False, True])
@pytest.mark.parametrize("kind", ["ema", "gradient", "nothing"])
def test_the_chosen_code_is_the_nearest_and_comes_out_rounded_once(dtype, half_module, kind):
    module = build(codes_learn_by=kind)
    module = module.to(dtype) if half_module else module
    codes, x = module.codes.detach()[0].clone(), draw(dtype)
    output, indices, loss = module(x)
    assert np.array_equal(indices.numpy(), nearest.nearest(numpy(x), numpy(codes)))
    assert torch.equal(output, codes[indices].to(dtype))
    assert (output.dtype, indices.dtype, loss.dtype) == (dtype, torch.int64, torch.float32)


@pytest.mark.parametrize("dtype", NARROW)
@pytest.mark.parametrize(
    "arguments", [{"codebook_dim": 3}, {"heads": 2, "metric": "cosine"}, {"estimator": "rotation"}]
)
def test_dtypes_are_those_of_the_input_and_all_is_finite(dtype, arguments):
    module, x = build(**arguments), draw(dtype).requires_grad_()
    output, _, loss = module(x)
    (output.float().sum() + loss).backward()
    assert output.dtype == x.grad.dtype == dtype
    assert loss.dtype == torch.float32
    assert output.isfinite().all()
    assert x.grad.isfinite().all()


@pytest.mark.parametrize("arguments", [{}, {"metric": "cosine"}, {"heads": 2}])
def test_autocast_does_not_touch_the_choice_the_loss_or_the_statistics(arguments):
    x = draw(torch.float32)
    plain, cast = build(**arguments), build(**arguments)
    expected = plain(x)
    with torch.autocast("cpu", torch.bfloat16):
        actual = cast(x)
    assert all(torch.equal(a, b) for a, b in zip(expected, actual, strict=True))
    states = zip(plain.state_dict().values(), cast.state_dict().values(), strict=True)
    assert all(torch.equal(a, b) for a, b in states)


def test_under_autocast_projections_are_narrow_and_the_output_is_as_wide_as_the_input():
    module, x = build(codebook_dim=3), draw(torch.float32)
    with torch.autocast("cpu", torch.bfloat16):
        output, _, loss = module(x)
    assert output.dtype == loss.dtype == torch.float32
    assert torch.equal(output, output.bfloat16().float())


@pytest.mark.parametrize("dtype", NARROW)
def test_a_stack_sums_its_codes_in_float32_and_rounds_once(dtype):
    torch.manual_seed(0)
    stack = ResidualQuantizer([VectorQuantize(DIM, SIZE) for _ in range(5)]).eval()
    output, indices, losses = stack(draw(dtype))
    assert torch.equal(output, stack.decode(indices).to(dtype))
    assert (output.dtype, losses.dtype) == (dtype, torch.float32)


def test_a_loss_beyond_float16_is_finite():
    module = build()
    output, _, loss = module(torch.full((COUNT, DIM), 6e4, dtype=torch.float16))
    assert loss.isfinite()
    assert output.isfinite().all()


def test_wide_tokens_keep_their_dtype():
    module, x = build(), draw(torch.float64)
    codes = module.codes[0].clone()
    output, indices, loss = module(x)
    assert output.dtype == loss.dtype == torch.float64
    assert torch.equal(output, codes[indices].double())
