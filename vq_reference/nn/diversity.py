"""Codebook diversity, a term to add to the loss of a codebook that collapses."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from vq_reference.nn import arguments


def diversity(x: Tensor, codes: Tensor, temperature: float) -> Tensor:
    """Return ℓ = Σ_k p̄_k log p̄_k, minus the entropy of p̄, the mean over all tokens of softmax_k(−τ‖x − e_k‖).

    x: (..., D), at least one token. codes: (K, D). temperature: τ ≥ 0. Any floating dtype; float32 at least is computed
    in. Returns a scalar, −log K for tokens that spread evenly over the codes, up to 0 for tokens that all choose one.
    Gradients reach x and the codes; a token that stands on a code gets none from that code. Needs memory for N·K·D
    numbers: distances are those of differences, which keep their digits where tokens come near their codes.
    Raises ValueError for no token, widths that differ, or a temperature that is negative, NaN or infinite.
    Source: Baevski et al., arXiv 2006.11477, eq. 4, for one group and without its factor 1/K.

    >>> codes = torch.tensor([[0.0], [8.0]])
    >>> diversity(torch.tensor([[1.0], [9.0]]), codes, temperature=10.0)
    tensor(-0.6931)
    >>> bool(diversity(torch.ones(2, 1), codes, temperature=10.0) > -1e-6)
    True
    """
    arguments.require_weight("temperature", temperature)
    if x.shape[-1:] != codes.shape[-1:] or not x.numel():
        raise ValueError(
            f"x is {tuple(x.shape)}, codes is {tuple(codes.shape)}: expected (..., D) of one token or more, and (K, D)"
        )
    wide = torch.promote_types(torch.promote_types(x.dtype, codes.dtype), torch.float32)
    distances = torch.linalg.vector_norm(x.to(wide).unsqueeze(-2) - codes.to(wide), dim=-1)
    log_shares = (-temperature * distances).log_softmax(dim=-1).reshape(-1, len(codes))
    log_mean = log_shares.logsumexp(dim=0) - math.log(len(log_shares))
    value: Tensor = (log_mean.exp() * log_mean).sum()
    return value
