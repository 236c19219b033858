"""A codebook that a gradient trains, or nothing."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from vq_reference.nn.arguments import require_size


class Codebook(nn.Module):
    """Codes of (K, D), drawn from N(0, 1/D): a parameter if `learnable`, else a buffer, which no optimizer touches.

    codebook_size: K. dim: D. Raises TypeError or ValueError for one that is no integer of at least 1.

    >>> [name for name, _ in Codebook(4, 2, learnable=False).named_buffers()]
    ['codes']
    """

    codes: Tensor

    def __init__(self, codebook_size: int, dim: int, learnable: bool) -> None:
        super().__init__()
        require_size("codebook_size", codebook_size)
        require_size("dim", dim)
        codes = torch.randn(codebook_size, dim) * dim**-0.5
        if learnable:
            self.codes = nn.Parameter(codes)
        else:
            self.register_buffer("codes", codes)

    @torch.no_grad()
    def place(self, codes: Tensor) -> None:
        """Set the codes. codes: (K, D)."""
        self.codes.copy_(codes)
