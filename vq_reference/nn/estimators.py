"""How a gradient gets through the choice of a code: straight-through, rotation, directional reparameterization.

All return the code, bit for bit, and differ in the gradient only. The form is sg(q) − (sg(f) − f): the bracket is
exactly zero and carries the gradient of f. It is subtracted because −0.0 + 0.0 would be +0.0. f itself is made of
x − sg(x), which is zero too, so that nothing in it can overflow or cancel.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from vq_reference.nn.arguments import require_floating


def straight_through(x: Tensor, q: Tensor) -> Tensor:
    """Return q with J = I: the decoder's gradient g is handed to x as it is.

    x, q: (..., D), same shape and dtype, any floating dtype. Returns the same shape: q bit for bit where the token of
    x is finite, a row of NaN where it is not. vjp: x gets g, q gets nothing.
    Raises ValueError when the shapes or dtypes differ, TypeError for a dtype that is not floating.
    Source: van den Oord et al., arXiv 1711.00937, §3.2, where it is written x + sg(q − x).

    >>> x, q = torch.tensor([[60000.0]], dtype=torch.float16, requires_grad=True), torch.tensor([[-60000.0]]).half()
    >>> straight_through(x, q)
    tensor([[-60000.]], dtype=torch.float16, grad_fn=<SubBackward0>)
    >>> x + (q - x).detach()
    tensor([[-inf]], dtype=torch.float16, grad_fn=<AddBackward0>)
    """
    _require_alike(x, q)
    return _carry(q, x - x.detach())


def rotate(x: Tensor, q: Tensor) -> Tensor:
    """Return q with J = λR: g is scaled by λ = ‖q‖/‖x‖ and turned by the rotation that takes q's direction to x's.

    x, q: (..., D), same shape and dtype, any floating dtype; float16 and bfloat16 compute R and λ in float32.
    Returns the same shape: q bit for bit where the token of x is finite, a row of NaN where it is not.
    vjp: x gets λR'g, q gets nothing. R = I − 2ww' + 2q̂x̂', w = (x̂ + q̂)/‖x̂ + q̂‖ (Fifty et al., arXiv 2410.06424, §4.2)
    is proper, turns x̂ onto q̂ in their common plane and leaves the rest of space alone.

    Where that leaves J open: x = 0 has no direction and no ratio, J = I. q = 0: λ = 0, J = 0. Exactly opposite
    directions lie in many planes: the one taken holds the first coordinate axis along which |q̂| is smallest; in one
    dimension no proper rotation exists and J = −λ. λ is at most √(largest number of x's dtype), so that λ·g is finite
    for every ordinary g.
    Raises ValueError when the shapes or dtypes differ, TypeError for a dtype that is not floating.

    >>> x, q = torch.tensor([[2.0, 0.0]], requires_grad=True), torch.tensor([[0.0, 1.0]])
    >>> out = rotate(x, q)
    >>> out
    tensor([[0., 1.]], grad_fn=<SubBackward0>)
    >>> torch.autograd.grad(out, x, q)[0].round(decimals=3)
    tensor([[0.5000, 0.0000]])
    """
    _require_alike(x, q)
    wide = torch.promote_types(x.dtype, torch.float32)
    with torch.no_grad():
        scale, first, second = _scaled_rotation(x.to(wide), q.to(wide), limit=torch.finfo(x.dtype).max ** 0.5)
    step = (x - x.detach()).to(wide)
    turned = scale * _reflect(_reflect(step, first), second)
    return _carry(q, turned.to(x.dtype))


def directional(x: Tensor, q: Tensor) -> Tensor:
    """Return q with J = I − dd' at x and dd' at q, d the direction from x to q: both parts of g add up to g.

    x, q: (..., D), same shape and dtype, any floating dtype; float16 and bfloat16 compute d in float32.
    Returns the same shape: q bit for bit where the token of x is finite, a row of NaN where it is not.
    vjp: x gets g − d(d'g), q gets d(d'g): what lies along the way trains the code. Where x = q, d = 0. q − x is taken
    in halves, which cannot overflow.
    Raises ValueError when the shapes or dtypes differ, TypeError for a dtype that is not floating.
    Source: Vali et al., arXiv 2509.26469, figure 1, where it is x + ‖q − x‖·sg(d) and d has noise on it; here without.

    >>> x, q = torch.zeros(1, 2, requires_grad=True), torch.tensor([[2.0, 0.0]], requires_grad=True)
    >>> torch.autograd.grad(directional(x, q), (x, q), torch.tensor([[3.0, 5.0]]))
    (tensor([[0., 5.]]), tensor([[3., 0.]]))
    """
    _require_alike(x, q)
    wide = torch.promote_types(x.dtype, torch.float32)
    step, shift = (x - x.detach()).to(wide), (q - q.detach()).to(wide)
    direction = _polar(q.to(wide) / 2 - x.to(wide) / 2).direction.detach()
    along = direction * (direction * (shift - step)).sum(dim=-1, keepdim=True)
    return _carry(q, (step + along).to(x.dtype))


def _carry(q: Tensor, f: Tensor) -> Tensor:
    """Return q bit for bit with the gradient of f. A NaN in one entry of f spreads over its whole token."""
    zero = f.detach() - f
    return q.detach() - (zero + zero.detach().sum(dim=-1, keepdim=True))


def _reflect(v: Tensor, mirror: Tensor) -> Tensor:
    """Return H v = v − 2 m m'v. A mirror of length 0 leaves v alone."""
    return v - 2 * mirror * (mirror * v).sum(dim=-1, keepdim=True)


def _scaled_rotation(x: Tensor, q: Tensor, limit: float) -> tuple[Tensor, Tensor, Tensor]:
    """Return λ (..., 1) and the mirrors a, b (..., D) with R = H_b H_a: two reflections stay orthogonal to rounding.

    Within a right angle a = x̂, b = w: multiplied out, H_w H_x̂ is the paper's I − 2ww' + 2q̂x̂'. Beyond it x̂ + q̂
    loses its digits. There a ∝ x̂ − q̂ takes x̂ to q̂, and b, in their plane and orthogonal to q̂, turns the reflection
    into a rotation.
    """
    x_unit, x_stretch, x_hat = _polar(x)
    q_unit, q_stretch, q_hat = _polar(q)
    x_is_zero = x_stretch == 0
    ratio = (q_unit / x_unit) * (q_stretch / x_stretch)
    scale = torch.where(x_is_zero, 1, ratio.clamp(max=limit))

    q_hat = q_hat * ~x_is_zero  # both mirrors vanish then, and R = I to the last bit
    acute = (x_hat * q_hat).sum(dim=-1, keepdim=True) > 0
    between = x_hat + q_hat
    first = _unit(torch.where(acute, x_hat, x_hat - q_hat))
    second = _unit(torch.where(acute | x_is_zero, between, _across(between, q_hat)))
    return scale, first, second


def _across(v: Tensor, q_hat: Tensor) -> Tensor:
    """Return the direction of v orthogonal to q̂; where v leaves none, that of the axis along which |q̂| is smallest.

    Orthogonalised twice: what the first pass leaves of a v almost along q̂ is mostly rounding.
    """
    axis = torch.zeros_like(q_hat).scatter(-1, q_hat.abs().argmin(dim=-1, keepdim=True), 1)
    _, length, rest = _polar(_orthogonal(v, q_hat))
    return _orthogonal(torch.where(length == 0, axis, rest), q_hat)


def _orthogonal(v: Tensor, q_hat: Tensor) -> Tensor:
    return v - (v * q_hat).sum(dim=-1, keepdim=True) * q_hat


def _unit(v: Tensor) -> Tensor:
    """Return v / ‖v‖, and 0 for 0, where ‖v‖ is of the order of 1."""
    return torch.nn.functional.normalize(v, dim=-1, eps=torch.finfo(v.dtype).tiny)


class _Polar(NamedTuple):
    """v = unit · stretch · direction, the length in two factors because their product may not be representable.

    unit: (..., 1), max |v_j|, the least normal number at least. stretch: (..., 1), ‖v / unit‖ ≤ √D.
    direction: (..., D), of length 1. The last two are 0 where v = 0.
    """

    unit: Tensor
    stretch: Tensor
    direction: Tensor


def _polar(v: Tensor) -> _Polar:
    """Return length and direction of each token v: (..., D), D ≥ 1, float32 or float64. No error is raised.

    Dividing by the largest entry first keeps ‖v‖ right to a few roundings from the smallest subnormal number to the
    largest finite one, where √(Σ v²) is 0 or infinite over half of that range.

    >>> _polar(torch.tensor([[3e30, -4e30], [0.0, 0.0]])).direction
    tensor([[ 0.6000, -0.8000],
            [ 0.0000,  0.0000]])
    """
    tiny = torch.finfo(v.dtype).tiny
    unit = v.abs().amax(dim=-1, keepdim=True).clamp(min=tiny)
    stretch = torch.linalg.vector_norm(v / unit, dim=-1, keepdim=True)
    return _Polar(unit, stretch, v / unit / stretch.clamp(min=tiny))


def _require_alike(x: Tensor, q: Tensor) -> None:
    require_floating("x", x)
    if x.shape != q.shape or x.dtype != q.dtype:
        raise ValueError(
            f"q is {tuple(q.shape)} {q.dtype}, x is {tuple(x.shape)} {x.dtype}: expected the same shape and dtype, "
            "one code for each token"
        )
