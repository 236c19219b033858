"""How many codes are in use, to be shown beside a loss."""

from __future__ import annotations

import torch
from torch import Tensor

from vq_reference.nn import arguments


def perplexity(indices: Tensor, codebook_size: int) -> Tensor:
    """Return exp(−Σ p log p), p_k the share of tokens that chose code k: from 1, all on one code, to K, all alike.

    indices: an integer dtype, any shape, as a quantizer returns them; −1 is padding and is not counted.
    Returns a float32 scalar without gradient; NaN where no token is left. Raises TypeError for other indices,
    ValueError for an index of codebook_size or more.
    Source: the exponential of Shannon's entropy, as the code of van den Oord et al. (arXiv 1711.00937) reports it.

    >>> perplexity(torch.tensor([3, 1, 3, 1]), codebook_size=8)
    tensor(2.)
    """
    shares = _counts(indices, codebook_size)
    shares = shares / shares.sum()
    return torch.exp(-torch.xlogy(shares, shares).sum())


def usage(indices: Tensor, codebook_size: int) -> Tensor:
    """Return the share of codes that some token chose, a float32 scalar without gradient; 0 where no token is left.

    indices, errors: as `perplexity`.

    >>> usage(torch.tensor([3, 1, 3, 1]), codebook_size=8)
    tensor(0.2500)
    """
    return (_counts(indices, codebook_size) > 0).float().mean()


def _counts(indices: Tensor, codebook_size: int) -> Tensor:
    """Return how many tokens chose each code, (K,) int64."""
    arguments.require_indices(indices)
    counts = torch.bincount(indices[indices >= 0], minlength=codebook_size)
    if len(counts) > codebook_size:
        raise ValueError(f"indices hold {len(counts) - 1}: expected less than codebook_size, {codebook_size}")
    return counts
