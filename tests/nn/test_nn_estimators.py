"""Laws of the torch estimators, on bit patterns drawn from the whole of each dtype."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch
from torch import Tensor

from vq_reference.nn.estimators import directional, rotate, straight_through

ESTIMATORS = [straight_through, rotate, directional]
BITS = {torch.float16: torch.int16, torch.bfloat16: torch.int16, torch.float32: torch.int32, torch.float64: torch.int64}
DTYPES = list(BITS)

estimators = pytest.mark.parametrize("estimator", ESTIMATORS, ids=lambda f: f.__name__)
dtypes = pytest.mark.parametrize("dtype", DTYPES, ids=str)


def any_finite(shape: tuple[int, ...], dtype: torch.dtype, seed: int) -> Tensor:
    """Draw finite numbers, every bit pattern equally likely: as many near each power of two as near any other."""
    info = torch.iinfo(BITS[dtype])
    generator = torch.Generator().manual_seed(seed)
    bits = torch.randint(info.min, info.max, shape, generator=generator, dtype=BITS[dtype])
    drawn = bits.view(dtype)
    return torch.where(drawn.isfinite(), drawn, torch.zeros_like(drawn).copysign(drawn))


def hard_pairs(dtype: torch.dtype, width: int) -> tuple[Tensor, Tensor]:
    """Return all pairs of tokens whose entries are ±0, ±1, and the least and largest numbers, of `width` entries."""
    info = torch.finfo(dtype)
    entries = [0.0, -0.0, 1.0, -1.0, info.tiny, -info.tiny, info.smallest_normal * info.eps, info.max, -info.max]
    tokens = torch.tensor(list(itertools.product(entries, repeat=width)), dtype=torch.float64).to(dtype)
    n = len(tokens)
    return tokens.repeat_interleave(n, 0), tokens.repeat(n, 1)


def same_bits(a: Tensor, b: Tensor) -> bool:
    return a.dtype == b.dtype and torch.equal(a.contiguous().view(BITS[a.dtype]), b.contiguous().view(BITS[b.dtype]))


def vjp(estimator, x: Tensor, q: Tensor, g: Tensor) -> Tensor:
    x = x.clone().requires_grad_()
    return torch.autograd.grad(estimator(x, q), x, g)[0]


def jacobian(x: Tensor, q: Tensor) -> np.ndarray:
    """Return J of `rotate` for one token each: x, q (D,) give (D, D)."""
    width = len(x)
    rows = vjp(rotate, x.expand(width, -1), q.expand(width, -1), torch.eye(width).to(x.dtype))
    return rows.double().numpy()


def plane_rotation(x: np.ndarray, q: np.ndarray) -> np.ndarray:
    """Return R by Rodrigues' formula in the plane of x and q, in float64: no reflection, no formula of the module's."""
    e = x / np.linalg.norm(x)
    t = q / np.linalg.norm(q)
    n = t - (t @ e) * e
    n = n - (n @ e) * e
    angle = math.atan2(np.linalg.norm(n), t @ e)
    n = n / np.linalg.norm(n)
    turn = (math.cos(angle) - 1) * (np.outer(e, e) + np.outer(n, n))
    return np.eye(len(x)) + turn + math.sin(angle) * (np.outer(n, e) - np.outer(e, n))


def reflection_error(width: int, u: float) -> float:
    """Bound ‖fl(H_b H_a v) − H_b H_a v‖ / ‖v‖ for mirrors that are unit to rounding, H orthogonal.

    ‖m‖² is off 1 by at most δ = (D + 6)u (a sum of D squares D·u, and with the root and two divisions 6u), so that H
    misses its orthogonal neighbour by 2δ. Applying it: m'v to (D + 1)u, 2m(m'v) 2u more, the difference u(1 + 2):
    2(D + 3)u + 3u. Two of them, and λ: 2·(2D + 12 + 2D + 9)u + u = (8D + 43)u.
    """
    return (8 * width + 43) * u


@estimators
@dtypes
@pytest.mark.parametrize("width", [1, 2, 7, 64])
def test_the_output_is_the_code_bit_for_bit_whatever_the_token(estimator, dtype, width):
    x, q = any_finite((20000, width), dtype, 1), any_finite((20000, width), dtype, 2)
    assert same_bits(estimator(x, q), q)


@estimators
@dtypes
@pytest.mark.parametrize("width", [1, 2])
def test_the_output_is_the_code_bit_for_bit_at_every_pair_of_hard_values(estimator, dtype, width):
    x, q = hard_pairs(dtype, width)
    assert same_bits(estimator(x, q), q)
    assert same_bits(estimator(q, q), q)
    assert same_bits(estimator(-q, q), q)


@estimators
def test_the_output_is_the_code_for_every_code_that_float16_has(estimator):
    every = torch.arange(-(2**15), 2**15, dtype=torch.int32).to(torch.int16).view(torch.float16)
    q = every[every.isfinite()][:, None]
    for x in (q, -q, q.flip(0), torch.full_like(q, 65504), torch.zeros_like(q)):
        assert same_bits(estimator(x, q), q)


@estimators
@dtypes
@pytest.mark.parametrize("width", [1, 2, 7, 64])
def test_the_gradient_is_finite_for_every_finite_token_and_code(estimator, dtype, width):
    x, q = any_finite((20000, width), dtype, 3), any_finite((20000, width), dtype, 4)
    for sign in (1, -1):
        assert vjp(estimator, x, q, torch.full_like(x, sign)).isfinite().all()
    if width <= 2:
        x, q = hard_pairs(dtype, width)
        assert vjp(estimator, x, q, torch.ones_like(x)).isfinite().all()


@dtypes
def test_straight_through_hands_the_gradient_on_bit_for_bit(dtype):
    x, q, g = (any_finite((1000, 5), dtype, seed) for seed in (5, 6, 7))
    assert same_bits(vjp(straight_through, x, q, g), g)


@dtypes
@pytest.mark.parametrize("scale", ["tiny", "max"])
def test_directional_divides_the_gradient_along_the_way_to_the_code_and_across(dtype, scale):
    unit = getattr(torch.finfo(dtype), scale) / 4
    x = torch.tensor([[-3.0, 1.0], [2.0, 2.0]], dtype=dtype).mul_(unit).requires_grad_()
    q = torch.tensor([[3.0, 1.0], [2.0, 2.0]], dtype=dtype).mul_(unit).requires_grad_()
    g = torch.tensor([[3.0, 5.0], [3.0, 5.0]], dtype=dtype)
    at_x, at_q = torch.autograd.grad(directional(x, q), (x, q), g)
    assert at_x.tolist() == [[0.0, 5.0], [3.0, 5.0]]
    assert at_q.tolist() == [[3.0, 0.0], [0.0, 0.0]]


@dtypes
@pytest.mark.parametrize("width", [2, 3, 17])
@pytest.mark.parametrize("angle", [0.3, math.pi / 2 - 1e-3, math.pi / 2 + 1e-3, 3.0, math.pi - 1e-2])
def test_the_vjp_of_rotate_is_lambda_times_the_plane_rotation_transposed(dtype, width, angle):
    generator = np.random.default_rng(8)
    u_of = {torch.float16: 2.0**-24, torch.bfloat16: 2.0**-24, torch.float32: 2.0**-24, torch.float64: 2.0**-53}
    for _ in range(20):
        e, n = np.linalg.qr(generator.standard_normal((width, 2)))[0].T
        x = torch.tensor(e * generator.uniform(0.5, 4)).to(dtype)
        q = torch.tensor((math.cos(angle) * e + math.sin(angle) * n) * generator.uniform(0.5, 4)).to(dtype)
        g = torch.tensor(generator.standard_normal(width)).to(dtype)
        x64, q64, g64 = (t.double().numpy() for t in (x, q, g))
        ratio = np.linalg.norm(q64) / np.linalg.norm(x64)
        expected = ratio * plane_rotation(x64, q64).T @ g64
        # unit vectors to (D/2 + 3)u each; a direction made of their sum magnifies that by 1/‖x̂ + q̂‖ = 1/(2cos(θ/2))
        mirrors = 4 * (width + 6) * (1 + 1 / (2 * math.cos(angle / 2)))
        bound = ratio * np.linalg.norm(g64) * (reflection_error(width, 1) + mirrors) * u_of[dtype]
        bound += torch.finfo(dtype).eps / 2 * np.linalg.norm(expected)
        error = np.linalg.norm(vjp(rotate, x[None], q[None], g[None])[0].double().numpy() - expected)
        assert error <= bound


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("gap", [0.0, 1e-12, 1e-7, 1e-6, 1e-3, 1.0, math.pi / 2, math.pi])
@pytest.mark.parametrize("width", [2, 3, 16])
def test_the_rotation_stays_proper_and_takes_the_token_to_the_code_up_to_opposite_directions(dtype, gap, width):
    generator = np.random.default_rng(9)
    u = torch.finfo(dtype).eps / 2
    for _ in range(40):
        e, n = np.linalg.qr(generator.standard_normal((width, 2)))[0].T
        x = torch.tensor(3 * e).to(dtype)
        q = torch.tensor(-(math.cos(gap) * e + math.sin(gap) * n)).to(dtype)
        x64, q64 = x.double().numpy(), q.double().numpy()
        ratio = np.linalg.norm(q64) / np.linalg.norm(x64)
        rotation = jacobian(x, q) / ratio
        entrywise = reflection_error(width, u) * math.sqrt(width)
        assert np.linalg.norm(rotation.T @ rotation - np.eye(width)) <= 2 * entrywise
        assert np.linalg.det(rotation) > 0
        # a, b from unit vectors to (D/2 + 3)u, both made at a length of √2 or more or orthogonalised twice
        landing = reflection_error(width, u) + 8 * (width + 6) * u
        assert np.linalg.norm(rotation @ x64 - q64 / ratio) <= landing * np.linalg.norm(x64)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("gap", [0.0, 1e-16, 1e-8, 1e-7, 1e-4])
@pytest.mark.parametrize("width", [2, 3, 16])
def test_of_many_tokens_almost_opposite_to_their_codes_none_is_turned_elsewhere(dtype, gap, width):
    """One in some thousand leaves, of x̂ + q̂, mostly rounding along q̂: only a second orthogonalisation removes it."""
    q, n = torch.randn(2, 20000, width, generator=torch.Generator().manual_seed(16), dtype=torch.float64)
    n = n / n.norm(dim=1, keepdim=True) * q.norm(dim=1, keepdim=True)
    x, q = (-1.7 * (q + gap * n)).to(dtype), q.to(dtype)
    back = vjp(rotate, x, q, q).double()  # λR'q = λ²x
    x64, ratio = x.double(), q.double().norm(dim=1, keepdim=True) / x.double().norm(dim=1, keepdim=True)
    u = torch.finfo(dtype).eps / 2
    landing = reflection_error(width, u) + 8 * (width + 6) * u
    assert ((back - ratio**2 * x64).norm(dim=1) <= landing * (ratio**2 * x64).norm(dim=1)).all()


@dtypes
def test_at_a_token_of_zero_the_gradient_is_handed_on_bit_for_bit(dtype):
    q, g = any_finite((1000, 5), dtype, 10), any_finite((1000, 5), dtype, 11)
    quiet = g.float().clamp(-1, 1).to(dtype)  # torch 2.0 clamps no float16, and every entry is exact in float32
    q[0] = 0
    assert torch.equal(vjp(rotate, torch.zeros_like(q), q, quiet), quiet)


@dtypes
def test_at_a_code_of_zero_the_gradient_is_zero(dtype):
    x = any_finite((1000, 5), dtype, 12)
    x[:, 0] = 1
    assert not vjp(rotate, x, torch.zeros_like(x), torch.ones_like(x)).any()


@dtypes
@pytest.mark.parametrize("stretch", [1.0, 0.5, 3.0])
def test_exactly_opposite_directions_turn_in_the_plane_of_the_axis_along_which_the_code_is_smallest(dtype, stretch):
    q = torch.tensor([3.0, -0.5, 0.5, 2.0], dtype=dtype)
    expected = np.eye(4)
    unit = q.double().numpy() / q.double().norm().item()
    axis = np.eye(4)[1] - unit[1] * unit  # the first of the two entries of size 0.5
    for direction in (unit, axis / np.linalg.norm(axis)):
        expected -= 2 * np.outer(direction, direction)  # half a turn in their plane
    u_wide = torch.finfo(torch.promote_types(dtype, torch.float32)).eps / 2
    bound = (reflection_error(4, u_wide) + 4 * (4 + 6) * 2 * u_wide + torch.finfo(dtype).eps / 2) * 2 / stretch
    assert np.linalg.norm(jacobian(-stretch * q, q) - expected / stretch) <= bound


@dtypes
def test_opposite_directions_in_one_dimension_give_minus_lambda(dtype):
    x, q = torch.tensor([[2.0], [-2.0], [4.0]], dtype=dtype), torch.tensor([[-4.0], [1.0], [-4.0]], dtype=dtype)
    assert vjp(rotate, x, q, torch.ones_like(x)).tolist() == [[-2.0], [-0.5], [-1.0]]


@dtypes
def test_lambda_is_at_most_the_root_of_the_largest_number(dtype):
    info = torch.finfo(dtype)
    x = torch.tensor([[info.tiny, 0.0]], dtype=dtype)
    q = torch.tensor([[info.max, 0.0]], dtype=dtype)
    got = vjp(rotate, x, q, torch.ones_like(x))
    assert same_bits(got, torch.full_like(got, math.sqrt(info.max)))


@dtypes
@pytest.mark.parametrize("scale", ["tiny", "max"])
def test_lambda_is_right_where_the_squares_of_the_norms_are_not_representable(dtype, scale):
    unit = getattr(torch.finfo(dtype), scale)
    x = torch.tensor([[unit, 0.0]], dtype=dtype) / 2
    assert vjp(rotate, x, x / 2, torch.ones_like(x)).tolist() == [[0.5, 0.5]]


@estimators
@dtypes
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_token_that_is_not_finite_gives_a_row_of_nan_and_leaves_the_others_alone(estimator, dtype, value):
    x, q = torch.randn(6, 4, generator=torch.Generator().manual_seed(13)).to(dtype), torch.ones(6, 4, dtype=dtype)
    x[2, 3] = value
    out = estimator(x, q)
    assert out[2].isnan().all()
    keep = torch.arange(6) != 2
    assert same_bits(out[keep], q[keep])


@pytest.mark.parametrize("estimator", [straight_through, rotate], ids=lambda f: f.__name__)
def test_the_code_gets_no_gradient(estimator):
    x, q = torch.ones(2, 3, requires_grad=True), torch.full((2, 3), 2.0, requires_grad=True)
    assert torch.autograd.grad(estimator(x, q).sum(), q, allow_unused=True) == (None,)


@estimators
@pytest.mark.parametrize("shape", [(0, 4), (2, 0, 4), (4,), (2, 3, 5, 4)])
def test_leading_axes_are_free_and_may_be_empty(estimator, shape):
    x, q = any_finite(shape, torch.float32, 14), any_finite(shape, torch.float32, 15)
    assert same_bits(estimator(x, q), q)
    assert vjp(estimator, x, q, torch.ones_like(x)).shape == shape


@estimators
def test_input_that_does_not_fit_is_named(estimator):
    x = torch.ones(2, 3)
    with pytest.raises(ValueError, match=r"q is \(3,\) torch.float32, x is \(2, 3\)"):
        estimator(x, torch.ones(3))
    with pytest.raises(ValueError, match=r"q is \(2, 3\) torch.float64"):
        estimator(x, x.double())
    with pytest.raises(TypeError, match=r"x has dtype torch.int64"):
        estimator(x.long(), x.long())
