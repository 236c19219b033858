"""Nearest code: i_n = argmin over k of ‖x_n − c_k‖, exactly, at the price of a matrix product.

‖x − c‖² = ‖x‖² − 2x·c + ‖c‖² costs one matrix product and cancels: its error is of the size of u·(‖x‖² + ‖c‖²), and a
common offset of 1000 leaves nothing of a float32. Here the product only excludes. Taken about the codes' mean, with
its own rounding subtracted, it is a lower bound on every distance; codes whose lower bound exceeds the upper bound of
the best one cannot be nearest. What is left, one code for most tokens, is compared by direct differences in float64.
"""

from __future__ import annotations

import torch
from torch import Tensor

from vq_reference.nn.arguments import require_floating

CHUNK = 2**21
"""Entries of the largest intermediate (8 MiB in float32): memory grows with tokens + codes, not with their product."""

BLOCK = 64
"""Codes whose least lower bound is looked at first, so that a search for candidates reads one number, not 64."""


def nearest(x: Tensor, codes: Tensor) -> Tensor:
    """Return the index of the code nearest to each token, (N,) int64; the lowest one of several at equal distance.

    x: (N, D), N ≥ 0. codes: (K, D), K ≥ 1. float16, bfloat16, float32 or float64, not necessarily the same. The index
    is that of the least direct difference computed in float64. So it depends neither on how the batch is split nor on
    autocast, and its excess distance is a few roundings of float64 (gradual underflow aside).
    Index −1: no code is nearest, because the token is not finite or some code is not.
    No gradient. One opaque operator, so that ``torch.compile(fullgraph=True)`` runs the same search as eager torch.
    Raises ValueError for shapes that do not fit, TypeError for a dtype that is not floating.

    >>> codes = torch.tensor([[1000.0, 0.0], [1000.001, 0.0], [1000.0, 0.0]])
    >>> nearest(torch.tensor([[1000.0009, 1.0], [1000.0, -2.0], [torch.nan, 0.0]]), codes)
    tensor([ 1,  0, -1])
    """
    for name, value in (("x", x), ("codes", codes)):
        require_floating(name, value)
    if x.ndim != 2 or codes.ndim != 2 or x.shape[1] != codes.shape[1]:
        raise ValueError(f"x is {tuple(x.shape)}, codes is {tuple(codes.shape)}: expected (N, D) and (K, D)")
    if codes.numel() == 0:
        raise ValueError(f"codes is {tuple(codes.shape)}: expected at least one code of at least one entry")
    with torch.no_grad():
        return torch.ops.vq_reference.nearest(x.detach(), codes.detach())  # type: ignore[no-any-return]


def _search(x: Tensor, codes: Tensor) -> Tensor:
    """Run the search chunk by chunk. Autocast would take the product in bfloat16, behind the bound's back."""
    with torch.autocast(device_type=x.device.type, enabled=False):
        wide = torch.promote_types(torch.promote_types(x.dtype, codes.dtype), torch.float32)
        tokens, codes = x.to(wide), codes.to(wide)
        table = _Table(codes)
        rows = max(BLOCK, CHUNK // len(codes))
        chosen = _shape(x, codes)
        for start in range(0, len(x), rows):
            chosen[start : start + rows] = table.nearest(tokens[start : start + rows])
        return torch.where(chosen < 0, chosen, table.index[chosen])


class _Table:
    """Codes prepared for a product [−2x̃, ρ, −2γ‖x̃‖] · [c̃, (1 − γ)‖c̃‖², ‖c̃‖]' that bounds each score from below.

    c̃ = c/s − m with m the mean of c/s, x̃ = x/t − ρm, ρ = s/t: s and t ≥ s are powers of two that bring the largest
    entry of the codes, and of codes and token, to 1. The score is (‖x − c‖² − ‖x − sm‖²)/(st) = ρ‖c̃‖² − 2x̃·c̃.

    γ bounds the relative error of either term (Higham, Accuracy and Stability of Numerical Algorithms, §3.1). D + 2
    for the product, D for ‖c̃‖², 2 for the roundings of c̃ and x̃, the rest of 2D + 16 for those of γ‖x̃‖‖c̃‖ and of
    `reach` below: γ_n = nu/(1 − nu), n = 2D + 16. A product that rounds its operands to fewer digits (TF32, bfloat16)
    adds 3 of its own unit roundoff. What underflows is at most the smallest normal number for each of D + 2 products.
    """

    def __init__(self, codes: Tensor) -> None:
        self.scale = _power_of_two(codes.abs().amax())  # many times faster than the norm of that name
        self.mean = (codes / self.scale).mean(dim=0)
        centred = codes / self.scale - self.mean
        norm = torch.linalg.vector_norm(centred, dim=1)
        # index in `codes` of each code kept: a collapsed codebook would make every code a candidate of every token
        self.index = _without_repeats(codes, norm)
        if len(self.index) < len(codes):
            codes, centred, norm = codes[self.index], centred[self.index], norm[self.index]
        self.codes = codes

        size, width = codes.shape
        info = torch.finfo(codes.dtype)
        roundings = (2 * width + 16) * info.eps / 2
        self.gamma = roundings / (1 - roundings) + 3 * _operand_roundoff(codes)
        self.underflow = 4 * (width + 2) * info.tiny
        # the direct comparison's own error, in units of d²: its minimum, too, must be among the candidates
        self.direct = 8 * (width + 16) * torch.finfo(torch.float64).eps / 2
        rows = torch.cat([centred, ((1 - self.gamma) * norm.square())[:, None], norm[:, None]], dim=1)
        self.rows = torch.cat([rows, rows[-1:].expand(-size % BLOCK, -1)])
        self.block_norm = self.rows[:, -1].reshape(-1, BLOCK).amax(dim=1)

    def nearest(self, x: Tensor) -> Tensor:
        """Return the row of `self.codes` nearest to each token, −1 where nothing is: x (N, D), result (N,) int64."""
        scale = torch.maximum(_power_of_two(x.abs().amax(dim=1, keepdim=True)), self.scale)
        ratio = self.scale / scale
        centred = x / scale - self.mean * ratio
        norm = torch.linalg.vector_norm(centred, dim=1, keepdim=True)
        lower = torch.cat([-2 * centred, ratio, -2 * self.gamma * norm], dim=1) @ self.rows.T
        lower = lower.reshape(-1, BLOCK)

        least = lower.amin(dim=1).reshape(len(x), -1)
        least_of_all, block = least.min(dim=1)
        norm, ratio, code_norm = norm[:, 0], ratio[:, 0], self.block_norm[block]
        error = self.gamma * (ratio * code_norm.square() + 2 * norm * code_norm)
        direct = self.direct * (norm.square() / ratio + ratio * code_norm.square())
        reach = least_of_all + 2 * error + direct + self.underflow

        blocks = (least <= reach[:, None]).flatten().nonzero()[:, 0]
        token = blocks // least.shape[1]
        entry, offset = (lower.index_select(0, blocks) <= reach[token, None]).nonzero(as_tuple=True)
        token, code = token[entry], blocks[entry] % least.shape[1] * BLOCK + offset
        if len(self.codes) % BLOCK:
            real = code < len(self.codes)
            token, code = token[real], code[real]
        return self._closest(x, token, code)

    def _closest(self, x: Tensor, token: Tensor, code: Tensor) -> Tensor:
        """Return for each token the candidate at the least distance, −1 where there is none; (token, code): (P,)."""
        chosen = token.new_full((len(x),), -1).scatter(0, token, code)
        contested = torch.bincount(token, minlength=len(x))[token] > 1
        if not contested.any():
            return chosen
        token, code = token[contested], code[contested]
        distance = torch.empty(len(token), dtype=torch.float64, device=x.device)
        rows = max(1, CHUNK // x.shape[1])
        for start in range(0, len(token), rows):
            part = slice(start, start + rows)
            distance[part] = self._distance(x[token[part]], self.codes[code[part]])
        least = distance.new_full((len(x),), torch.inf).scatter_reduce(0, token, distance, "amin")
        winner = distance == least[token]
        return chosen.scatter(0, token, len(self.codes)).scatter_reduce(0, token[winner], code[winner], "amin")

    def _distance(self, x: Tensor, code: Tensor) -> Tensor:
        """Return ‖x − code‖ in float64, scaled by powers of two only: nothing overflows, and exact ties stay ties."""
        x, code = x.double(), code.double()
        if self.codes.dtype == torch.float64:
            largest = torch.maximum(x.abs().amax(dim=1, keepdim=True), self.codes.abs().amax())
            factor = torch.where(largest > 1, 2.0 ** -x.shape[1].bit_length(), 1.0)
            x, code = x * factor, code * factor
        difference = x - code
        scale = _power_of_two(difference.abs().amax(dim=1))
        return scale * (difference / scale[:, None]).square().sum(dim=1).sqrt()


def _without_repeats(codes: Tensor, norm: Tensor) -> Tensor:
    """Return in ascending order the indices of `codes` (K, D) that repeat no lower one, (≤ K,).

    Equal codes have equal norms (K,) and so meet when sorted by it. One that another of its norm keeps from its twin
    is not seen, which costs time and no correctness.
    """
    norm, order = norm.sort(stable=True)
    meet = (norm[1:] == norm[:-1]).nonzero()[:, 0]
    earlier, later = order[meet], order[meet + 1]
    repeats = later[(codes[later] == codes[earlier]).all(dim=1)]
    return torch.ones_like(order).index_fill(0, repeats, 0).nonzero()[:, 0]


def _power_of_two(largest: Tensor) -> Tensor:
    """Return the power of two in (largest/2, largest], the least normal one at least: dividing by it rounds nothing."""
    largest = largest.clamp(min=torch.finfo(largest.dtype).tiny)
    return largest / (2 * torch.frexp(largest).mantissa)


def _operand_roundoff(codes: Tensor) -> float:
    """Return the unit roundoff to which a matrix product rounds its operands first: 0 when it takes them as they are.

    TF32 keeps 11 binary digits and bfloat16 8. Whoever allowed them gets their speed; the bound widens.
    """
    if codes.dtype == torch.float64:
        return 0.0
    backend = torch.backends.cuda if codes.is_cuda else torch.backends.mkldnn
    precision = getattr(getattr(backend, "matmul", None), "fp32_precision", None)
    if precision is None:  # torch before 2.9
        precision = {"highest": "ieee", "high": "tf32"}.get(torch.get_float32_matmul_precision(), "bf16")
    return {"ieee": 0.0, "none": 0.0, "tf32": 2.0**-11}.get(precision, 2.0**-8)


def _shape(x: Tensor, codes: Tensor) -> Tensor:
    """Say what `_search` returns without running it: what torch.compile traces."""
    return x.new_empty((x.shape[0],), dtype=torch.int64)


if not hasattr(torch.ops.vq_reference, "nearest"):
    # An operator and not plain torch, because the number of candidates depends on the data, which no full graph allows.
    _LIBRARY = torch.library.Library("vq_reference", "DEF")  # type: ignore[no-untyped-call]
    _LIBRARY.define("nearest(Tensor x, Tensor codes) -> Tensor")  # type: ignore[no-untyped-call]
    _LIBRARY.impl("nearest", _search, "CompositeExplicitAutograd")  # type: ignore[no-untyped-call]
    _LIBRARY.impl("nearest", _shape, "Meta")  # type: ignore[no-untyped-call]
