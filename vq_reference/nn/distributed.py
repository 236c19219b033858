"""What processes that train one codebook tell one another; in a single process each function is the identity.

All ranks must call them the same number of times, in the same order. They do when what a codebook decides depends only
on its own state and on sums over all ranks, both the same on every rank.
"""

from __future__ import annotations

import torch
import torch.distributed as dist
from torch import Tensor


def is_shared() -> bool:
    """Return whether a process group of torch.distributed is up."""
    return dist.is_available() and dist.is_initialized()


def sum_over_ranks(value: Tensor) -> Tensor:
    """Return the sum of every rank's `value`, of one shape and dtype on all; the same bits on all."""
    if not is_shared():
        return value
    total = value.clone()
    dist.all_reduce(total)
    return total


def from_first_rank(value: Tensor) -> Tensor:
    """Return rank 0's `value`, of one shape and dtype on all ranks."""
    if not is_shared():
        return value
    received = value.clone()
    dist.broadcast(received, src=0)
    return received


def span_of_rank(count: int, device: torch.device) -> tuple[int, int]:
    """Return where this rank's `count` items begin when all ranks' items stand in a row, and how many there are."""
    if not is_shared():
        return 0, count
    counts = torch.zeros(dist.get_world_size(), dtype=torch.int64, device=device)
    counts[dist.get_rank()] = count
    dist.all_reduce(counts)
    return int(counts[: dist.get_rank()].sum()), int(counts.sum())
