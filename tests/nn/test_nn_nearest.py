"""Laws of the nearest code, against exact integers and against float64 over all pairs."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
import torch
from torch import Tensor

from vq_reference.nn.nearest import BLOCK, CHUNK, _Table, nearest

DTYPES = [torch.float16, torch.bfloat16, torch.float32, torch.float64]
BITS = {torch.float16: torch.int16, torch.bfloat16: torch.int16, torch.float32: torch.int32}
dtypes = pytest.mark.parametrize("dtype", DTYPES, ids=str)


def draw(seed: int, *shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def lattice(seed: int, *shape: int, side: int = 3) -> Tensor:
    """Draw small integers: every dtype holds them, their distances are exact, and many are equal."""
    return torch.randint(-side, side + 1, shape, generator=torch.Generator().manual_seed(seed))


def any_finite(seed: int, *shape: int, dtype: torch.dtype) -> Tensor:
    """Draw finite numbers, every bit pattern equally likely."""
    info = torch.iinfo(BITS[dtype])
    drawn = torch.randint(info.min, info.max, shape, generator=torch.Generator().manual_seed(seed), dtype=BITS[dtype])
    return torch.where(drawn.view(dtype).isfinite(), drawn.view(dtype), 0)


def squares(x: Tensor, codes: Tensor) -> np.ndarray:
    """Return ‖x − c‖² for all pairs, (N, K), in float64: no float32 overflows it or vanishes in it."""
    return np.square(x.double().numpy()[:, None] - codes.double().numpy()[None]).sum(-1)


def assert_nearest(x: Tensor, codes: Tensor) -> None:
    """Assert that no code is closer than the chosen one by more than float64 can tell.

    Each of two squared distances is off by at most (D + 2)u of itself, here and in `nearest`, whose root and scale add
    3u: an excess of 2(D + 2) + 2(D + 2 + 3) < 4(D + 4) roundings of d².
    """
    d2 = squares(x, codes)
    chosen = nearest(x, codes).numpy()
    assert (chosen >= 0).all()
    excess = d2[np.arange(len(x)), chosen] - d2.min(1)
    assert (excess <= 4 * (x.shape[1] + 4) * 2.0**-53 * d2.min(1)).all()


@dtypes
@pytest.mark.parametrize("offset", [0, 100, -100])
@pytest.mark.parametrize("size", [1, 2, BLOCK - 1, BLOCK, BLOCK + 1, 500])
def test_the_index_is_the_lowest_of_the_nearest_codes_exactly(dtype, offset, size):
    """On a lattice ties are everywhere, and integers know them."""
    x, codes = lattice(1, 300, 3) + offset, lattice(2, size, 3) + offset
    expected = (x[:, None] - codes[None]).square().sum(-1).numpy().argmin(1)
    assert nearest(x.to(dtype), codes.to(dtype)).tolist() == expected.tolist()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("offset", [1000.0, 1e6, -1e7])
@pytest.mark.parametrize("spread", [1.0, 1e-2])
def test_a_common_offset_does_not_spoil_the_choice(dtype, offset, spread):
    x, codes = (spread * draw(3, 400, 16).double() + offset).to(dtype), (spread * draw(4, 300, 16) + offset).to(dtype)
    assert_nearest(x, codes)


@pytest.mark.parametrize("x_offset", [0.0, 1e3, 1e9])
@pytest.mark.parametrize("code_spread", [1e-9, 1e-3, 1.0, 1e4])
def test_codes_that_lie_close_together_or_far_from_the_tokens_are_told_apart(x_offset, code_spread):
    assert_nearest(draw(5, 200, 8) + x_offset, code_spread * draw(6, 300, 8))


@dtypes
@pytest.mark.parametrize("gap", [1e-1, 1e-4, 1e-7])
def test_codes_in_tight_clusters_far_from_their_mean_are_told_apart(dtype, gap):
    """Here ‖x‖² − 2x·c + ‖c‖² loses every digit, with or without a centre."""
    centres = 10 * draw(7, 5, 12)
    codes = (centres.repeat_interleave(80, 0) + gap * draw(8, 400, 12)).to(dtype)
    x = (centres.repeat_interleave(40, 0) + gap * draw(9, 200, 12)).to(dtype)
    assert_nearest(x, codes)


@pytest.mark.parametrize("width", [1, 2, 9])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32], ids=str)
def test_no_code_is_closer_for_any_finite_numbers_at_all(dtype, width):
    assert_nearest(any_finite(10, 500, width, dtype=dtype), any_finite(11, 300, width, dtype=dtype))


@pytest.mark.parametrize("scale", [1e-45, 1e-38, 1e-30, 1e-20, 1e19, 1e30, 1e38])
def test_squares_outside_the_range_of_float32_do_not_matter(scale):
    unit = torch.tensor(scale, dtype=torch.float64)
    x, codes = ((lattice(seed, 200, 4) * unit).float() for seed in (12, 13))
    assert_nearest(x, codes)
    assert_nearest(torch.cat([x, draw(14, 50, 4)]), torch.cat([codes, draw(15, 50, 4)]))
    assert_nearest(x, draw(15, 50, 4))
    assert_nearest(x, 1e-37 * draw(15, 50, 4))
    assert_nearest(draw(14, 50, 4), codes)


@pytest.mark.parametrize("power", range(-78, -58))
def test_scores_that_are_lost_to_underflow_exclude_nothing(power):
    """The codes ±1 set the scale; what tells the others apart are squares around the least numbers of float32."""
    x, few = draw(32, 400, 1) * 2.0**power, draw(33, BLOCK // 2, 1) * 2.0**power
    assert_nearest(x, torch.cat([few, -few, torch.ones(1, 1), -torch.ones(1, 1)]))


def test_the_largest_numbers_of_float64_are_told_apart():
    big = torch.finfo(torch.float64).max
    tiny = torch.finfo(torch.float64).tiny
    values = [-big, -big / 2, -1.0, -tiny, 0.0, tiny, 1e-200, 1.0, 1e200, big / 2, big]
    x = torch.tensor([[a, b] for a in values for b in values], dtype=torch.float64)
    codes = torch.tensor([[a, b] for a in values[::2] for b in values[::3]], dtype=torch.float64)
    for token, chosen in zip(x.tolist(), nearest(x, codes).tolist(), strict=True):
        exact = [sum((Fraction(a) - Fraction(b)) ** 2 for a, b in zip(token, c, strict=True)) for c in codes.tolist()]
        # 6 roundings in each length, twice that in its square, for two codes; and one subnormal step of each entry
        assert exact[chosen] <= min(exact) * (1 + Fraction(24, 2**53)) + Fraction(2.0**-1074) ** 2 * 8


def test_distances_that_overflow_are_compared():
    big = torch.finfo(torch.float64).max
    x = torch.tensor([[-big, 1.0]], dtype=torch.float64)
    codes = torch.tensor([[big, 0.0], [big, 1.0], [big / 2, 1.0], [big / 2, 0.0]], dtype=torch.float64)
    assert nearest(x, codes[:2]).tolist() == [0]
    assert nearest(x, codes).tolist() == [2]


@pytest.mark.parametrize("far", [2.0**40, 2.0**60, 2.0**200])
def test_distances_that_float64_cannot_tell_apart_count_as_equal(far):
    """Else the answer would depend on how the matrix product rounds, which depends on the batch."""
    x, codes = lattice(34, 50, 3).double(), lattice(35, 200, 3).double()
    x[:, 0] += far
    distance = np.sqrt(squares(x, codes))
    assert nearest(x, codes).tolist() == distance.argmin(1).tolist()


@dtypes
def test_equal_codes_give_the_lowest_index_wherever_they_stand(dtype):
    codes = draw(16, 3, 10).to(dtype).repeat(3 * BLOCK, 1)
    x = draw(17, 100, 10).to(dtype)
    assert nearest(x, codes).tolist() == nearest(x, codes[:3]).tolist()


@pytest.mark.parametrize("offset", [0.0, 1000.0])
def test_the_index_does_not_depend_on_how_the_batch_is_split(offset):
    """Upstream's cdist changes its algorithm above 25 rows, and with it the indices."""
    x, codes = draw(18, 200, 16) + offset, draw(19, 150, 16) + offset
    whole = nearest(x, codes)
    for parts in (1, 7, 25, 26, 199):
        assert torch.equal(torch.cat([nearest(part, codes) for part in x.split(parts)]), whole)


def test_the_index_does_not_depend_on_the_chunk(monkeypatch):
    x, codes = draw(20, 300, 6) + 50, draw(21, 200, 6) + 50
    whole = nearest(x, codes)
    monkeypatch.setattr("vq_reference.nn.nearest.CHUNK", 1)
    assert CHUNK > 1
    assert torch.equal(nearest(x, codes), whole)


def test_neither_autocast_nor_a_product_of_low_precision_changes_the_index():
    x, codes = draw(22, 300, 64), draw(23, 500, 64)
    whole = nearest(x, codes)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(nearest(x, codes), whole)
    before = torch.get_float32_matmul_precision()
    try:
        for precision in ("high", "medium"):
            torch.set_float32_matmul_precision(precision)
            assert torch.equal(nearest(x, codes), whole)
    finally:
        torch.set_float32_matmul_precision(before)


@pytest.mark.parametrize(("precision", "digits"), [("high", 10), ("medium", 7)])
def test_a_product_that_rounds_its_operands_first_changes_no_index(monkeypatch, precision, digits):
    """TF32 keeps 10 binary digits after the first, bfloat16 7. Imitated, for not every processor does what it may."""

    def rounded(t: Tensor) -> Tensor:
        mantissa, exponent = torch.frexp(t)
        return torch.ldexp(torch.round(mantissa * 2 ** (digits + 1)) / 2 ** (digits + 1), exponent)

    product = torch.Tensor.__matmul__
    x, codes = draw(22, 300, 64), draw(23, 500, 64)
    whole = nearest(x, codes)
    before = torch.get_float32_matmul_precision()
    try:
        torch.set_float32_matmul_precision(precision)
        monkeypatch.setattr(torch.Tensor, "__matmul__", lambda a, b: product(rounded(a), rounded(b)))
        assert torch.equal(nearest(x, codes), whole)
    finally:
        torch.set_float32_matmul_precision(before)


@pytest.mark.parametrize("offset", [0.0, 1000.0])
def test_the_matrix_product_excludes_almost_every_code(monkeypatch, offset):
    """What it does not exclude is compared pair by pair: right as well, and slow."""
    compared = []
    measure = _Table._distance
    monkeypatch.setattr(_Table, "_distance", lambda table, x, c: (compared.append(len(x)), measure(table, x, c))[1])
    x, codes = draw(36, 500, 16) + offset, draw(37, 400, 16) + offset
    nearest(x, codes)
    nearest(x, codes[:1].expand(400, -1))
    assert sum(compared) < len(x)


def test_the_dtypes_of_tokens_and_codes_may_differ():
    x, codes = lattice(24, 50, 3), lattice(25, 40, 3)
    expected = nearest(x.double(), codes.double())
    for a in DTYPES:
        for b in DTYPES:
            assert torch.equal(nearest(x.to(a), codes.to(b)), expected)


@dtypes
@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
def test_nothing_is_nearest_to_a_token_that_is_not_finite(dtype, value):
    x, codes = draw(26, 30, 4).to(dtype), draw(27, 20, 4).to(dtype)
    spoiled = x.clone()
    spoiled[7, 2] = value
    expected = nearest(x, codes)
    expected[7] = -1
    assert torch.equal(nearest(spoiled, codes), expected)


@dtypes
@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
def test_nothing_is_nearest_among_codes_that_are_not_finite(dtype, value):
    x, codes = draw(28, 30, 4).to(dtype), draw(29, 20, 4).to(dtype)
    codes[5, 1] = value
    assert nearest(x, codes).tolist() == [-1] * 30


@dtypes
@pytest.mark.parametrize("size", [1, 100])
def test_no_tokens_have_no_index(dtype, size):
    found = nearest(torch.empty(0, 4, dtype=dtype), torch.ones(size, 4, dtype=dtype))
    assert found.shape == (0,)
    assert found.dtype == torch.int64


def test_the_index_has_no_gradient_and_needs_none():
    x, codes = draw(30, 5, 4).requires_grad_(), draw(31, 6, 4).requires_grad_()
    assert not nearest(x, codes).requires_grad


def test_input_that_does_not_fit_is_named():
    x = torch.ones(3, 4)
    with pytest.raises(ValueError, match=r"x is \(3, 4\), codes is \(5, 3\): expected \(N, D\) and \(K, D\)"):
        nearest(x, torch.ones(5, 3))
    with pytest.raises(ValueError, match=r"x is \(4,\)"):
        nearest(x[0], x)
    with pytest.raises(ValueError, match=r"codes is \(0, 4\): expected at least one code"):
        nearest(x, x[:0])
    with pytest.raises(TypeError, match=r"codes has dtype torch.int64"):
        nearest(x, x.long())
    with pytest.raises(TypeError, match=r"x has dtype torch.complex64"):
        nearest(x + 0j, x)
