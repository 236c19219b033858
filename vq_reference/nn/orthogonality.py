"""Orthogonality of a codebook, a term to add to a loss."""

from __future__ import annotations

import torch
from torch import Tensor


def orthogonality(codes: Tensor) -> Tensor:
    """Return ℓ = (1/K²) Σ_{i≠j} (ê_i·ê_j)², ê the directions of the codes.

    codes: (K, D), K ≥ 1, of any floating dtype; float32 at least is computed in. Returns a scalar, from 0 for codes at
    right angles to 1 − 1/K for codes of one line. Gradients reach the codes, across their directions; a code of length
    0 has none. Raises ValueError for a shape that is not (K, D).
    Source: Shin et al., arXiv 2112.00384, eq. 2.

    >>> orthogonality(torch.tensor([[2.0, 0.0], [0.0, 5.0]])), orthogonality(torch.tensor([[1.0], [-3.0]]))
    (tensor(0.), tensor(0.5000))
    """
    if codes.ndim != 2 or not len(codes):
        raise ValueError(f"codes has shape {tuple(codes.shape)}: expected (K, D) with K of at least 1")
    wide = codes.to(torch.promote_types(codes.dtype, torch.float32))
    directions = torch.nn.functional.normalize(wide, dim=-1, eps=torch.finfo(wide.dtype).tiny)
    cosines = directions @ directions.T
    return (cosines - cosines.diag().diag()).square().mean()
