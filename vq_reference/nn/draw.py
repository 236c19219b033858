"""Tokens drawn at random, to become codes."""

from __future__ import annotations

import torch
from torch import Tensor

from vq_reference.nn.distributed import from_first_rank, span_of_rank, sum_over_ranks


def draw_tokens(tokens: Tensor, valid: Tensor, size: int) -> Tensor:
    """Return `size` of the valid tokens of all ranks, (size, D), the same ones on every rank.

    tokens: (N, D). valid: (N,) bool; a token that is not valid is never drawn. No token is drawn twice while there are
    enough; when there are fewer, all are drawn equally often, up to one time. No valid token at all: size × D of zeros.
    Rank 0's random numbers decide, over the tokens of all ranks in a row: N ranks draw what one process would draw from
    the concatenated batch. Only the drawn tokens travel: each rank puts in its own, and 0 for those of others.

    >>> draw_tokens(torch.tensor([[1.0], [2.0]]), torch.tensor([False, True]), size=3)
    tensor([[2.],
            [2.],
            [2.]])
    """
    candidates = tokens[valid]
    first, total = span_of_rank(len(candidates), tokens.device)
    drawn = tokens.new_zeros(size, tokens.shape[1])
    if total == 0:
        return drawn
    position = torch.arange(size, device=tokens.device) % total
    chosen = from_first_rank(torch.randperm(total, device=tokens.device)[position]) - first
    here = (chosen >= 0) & (chosen < len(candidates))
    drawn[here] = candidates[chosen[here]]
    return sum_over_ranks(drawn)
