"""The way into the space of the codes and out of it again, past the padding."""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn


class Projections(nn.Module):
    """h = x W_in' + b_in and y = q W_out' + b_out; nothing where the widths are the same. Padding is 0 on either side.

    dim: width of x and y. width: that of h and q. State: project_in and project_out, each an nn.Linear or nothing.

    >>> Projections(dim=4, width=4).project_in
    Identity()
    """

    def __init__(self, dim: int, width: int) -> None:
        super().__init__()
        self.needed = dim != width
        self.project_in = nn.Linear(dim, width) if self.needed else nn.Identity()
        self.project_out = nn.Linear(width, dim) if self.needed else nn.Identity()

    def enter(self, x: Tensor, valid: Tensor) -> Tensor:
        """Return h, (..., width), for x (..., dim) and valid (...) bool. No content of padding is ever looked at."""
        present = torch.where(valid[..., None], x, 0)
        hidden = _apply_to(present, self.project_in)
        return torch.where(valid[..., None], hidden, 0)  # padding came out of the projection as its bias

    def leave(self, q: Tensor, valid: Tensor) -> Tensor:
        """Return y, (..., dim), for q (..., width) and valid (...) bool."""
        output = _apply_to(q, self.project_out)
        return torch.where(valid[..., None], output, 0)


def _apply_to(x: Tensor, layer: nn.Module) -> Tensor:
    """Return layer(x), computed in the layer's own dtype, or in that of autocast."""
    return cast(Tensor, layer(x.to(layer.weight.dtype))) if isinstance(layer, nn.Linear) else x
