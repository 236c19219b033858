"""The codebooks of a layer with heads: one that all heads share, or one for each."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import cast

import torch
from torch import Tensor, nn

from vq_reference.nn.codebook import Codebook
from vq_reference.nn.ema import EMACodebook
from vq_reference.nn.nearest import nearest


class Codebooks(nn.ModuleList):
    """G codebooks for H heads: G = 1, and heads are tokens like any others, or G = H, and head h has codebook h.

    members: `Codebook` or `EMACodebook`, all of (K, D). heads: H.
    Raises ValueError when there are neither 1 nor H of them.

    >>> books = Codebooks([Codebook(4, 2, learnable=False) for _ in range(3)], heads=3)
    >>> indices = books.choose(torch.zeros(5, 3, 2), books.raw())
    >>> indices.shape, books.look_up(books.raw(), indices).shape
    (torch.Size([5, 3]), torch.Size([5, 3, 2]))
    """

    def __init__(self, members: Iterable[Codebook | EMACodebook], heads: int) -> None:
        super().__init__(members)
        if len(self) not in (1, heads):
            raise ValueError(f"members has {len(self)} codebooks: expected 1, shared, or {heads}, one for a head")
        self.heads = heads

    def raw(self) -> Tensor:
        """Return the codes as they are stored, (G, K, D)."""
        return torch.stack([cast(Tensor, codebook.codes) for codebook in self])

    def choose(self, tokens: Tensor, codes: Tensor) -> Tensor:
        """Return the index of the nearest code, (..., H), for tokens (..., H, D) and codes (G, K, D)."""
        chosen = [nearest(rows, its_codes) for rows, its_codes in zip(self._split(tokens, 1), codes, strict=True)]
        return self._join(chosen, tokens.shape[:-1])

    def look_up(self, codes: Tensor, indices: Tensor) -> Tensor:
        """Return the codes, (..., H, D), of codes (G, K, D) and indices (..., H); 0 for an index below 0."""
        known = indices >= 0
        rows = self._split(torch.where(known, indices, 0), 0)
        found = [nn.functional.embedding(row, its_codes) for row, its_codes in zip(rows, codes, strict=True)]
        return torch.where(known[..., None], self._join(found, indices.shape), 0)

    def initialise(self, tokens: Tensor, usable: Tensor) -> None:
        """Let EMA codebooks take codes from the usable ones, (..., H) bool, of tokens (..., H, D)."""
        for codebook, rows, its_usable in zip(self, self._split(tokens, 1), self._split(usable, 0), strict=True):
            cast(EMACodebook, codebook).initialise(rows, its_usable)

    def update(self, tokens: Tensor, indices: Tensor) -> None:
        """Let EMA codebooks follow tokens (..., H, D) that chose indices (..., H); −1: not there."""
        for codebook, rows, chosen in zip(self, self._split(tokens, 1), self._split(indices, 0), strict=True):
            cast(EMACodebook, codebook).update(rows, chosen)

    def _split(self, values: Tensor, trailing: int) -> Iterator[Tensor]:
        """Yield for each codebook its rows of values (..., H, *), with `trailing` axes after H: (N, *) or (N·H, *)."""
        by_head = values.flatten(0, values.ndim - 2 - trailing)
        return iter(by_head.unbind(1) if len(self) > 1 else [by_head.flatten(0, 1)])

    def _join(self, rows: list[Tensor], shape: torch.Size) -> Tensor:
        """Undo `_split`: (..., H, *), with `shape` for (..., H)."""
        by_head = torch.stack(rows, dim=1) if len(self) > 1 else rows[0]
        return by_head.reshape(*shape, *rows[0].shape[1:])
