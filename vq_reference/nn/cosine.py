"""The direction of a token, for the cosine metric."""

from __future__ import annotations

import torch
from torch import Tensor


def unit(x: Tensor) -> Tensor:
    """Return x̂ = x/‖x‖ for each token of x, (..., D), float32 or float64; 0 for x = 0.

    vjp: g ↦ (g − x̂(x̂'g))/‖x‖, and g for x = 0, which has no direction. Dividing by the largest entry first, a constant
    that x̂ does not depend on, keeps the squares in range.

    >>> x = torch.tensor([[3.0, 4.0], [0.0, 0.0]], requires_grad=True)
    >>> unit(x)
    tensor([[0.6000, 0.8000],
            [0.0000, 0.0000]], grad_fn=<DivBackward0>)
    """
    largest = x.detach().abs().amax(dim=-1, keepdim=True)
    scaled = x / torch.where(largest == 0, 1, largest)
    length = torch.linalg.vector_norm(scaled, dim=-1, keepdim=True)
    return scaled / torch.where(length == 0, 1, length)
