"""Which tokens are there: a mask, or the lengths of padded sequences, as one bool for each token."""

from __future__ import annotations

import torch
from torch import Tensor

from vq_reference.nn.arguments import require_integers


def valid_tokens(x: Tensor, mask: Tensor | None, lengths: Tensor | None) -> Tensor:
    """Return a bool for each token, (...): True for a token, False for padding; all True without mask and lengths.

    x: (..., D), channels last. mask: (...) bool. lengths: (B,) of an integer dtype, for x of (B, T, D): the first
    lengths[b] tokens of sequence b are there, so that all are for a length of T or more, and none for 0 or less.
    Raises ValueError for both at once or for a shape that does not fit, TypeError for another dtype.

    >>> valid_tokens(torch.zeros(2, 3, 4), None, torch.tensor([1, 3]))
    tensor([[ True, False, False],
            [ True,  True,  True]])
    """
    if mask is not None and lengths is not None:
        raise ValueError("mask and lengths were given: expected at most one of them, since either says it all")
    if lengths is not None:
        return _within(x, lengths)
    if mask is None:
        return torch.ones(x.shape[:-1], dtype=torch.bool, device=x.device)
    if mask.dtype != torch.bool:
        raise TypeError(f"mask has dtype {mask.dtype}: expected torch.bool, True where a token is there")
    if mask.shape != x.shape[:-1]:
        raise ValueError(f"mask has shape {tuple(mask.shape)}: expected {tuple(x.shape[:-1])}, one for each token")
    return mask


def _within(x: Tensor, lengths: Tensor) -> Tensor:
    require_integers("lengths", lengths, "tokens in each sequence")
    if x.ndim != 3 or lengths.shape != x.shape[:1]:
        raise ValueError(
            f"lengths has shape {tuple(lengths.shape)}, x (channels last) {tuple(x.shape)}: expected (B,) and (B, T, D)"
        )
    positions = torch.arange(x.shape[1], device=x.device)
    return positions < lengths[:, None]
