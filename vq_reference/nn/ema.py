"""A codebook that follows its tokens by exponential moving averages, as a torch module."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from vq_reference.nn.arguments import require_size, require_weight
from vq_reference.nn.distributed import sum_over_ranks
from vq_reference.nn.draw import draw_tokens


class EMACodebook(nn.Module):
    """Codes that are moving averages of the tokens that chose them.

    Source: van den Oord et al., arXiv 1711.00937, A.1, with Laplace smoothing: N_k ← γN_k + (1 − γ)n_k,
    m_k ← γm_k + (1 − γ)s_k, e_k = m_k/Ñ_k, Ñ_k = (N_k + ε)/(N + Kε)·N. A code that no token chose stays where it is
    (the formula would shrink it towards 0), and a step without any token is no step.

    codebook_size: K. dim: D. decay: 0 < γ ≤ 1. epsilon: ε ≥ 0.
    replace_below: τ ≥ 0. After a step, a code with N_k < τ is replaced by a token of the batch. A code that is placed
    gets N_k = F = max(1, τ/γ²) and m_k = F·e_k: one unused step later it is still there.
    initialise_from_data: the first batch with a token replaces the codes, drawn from N(0, 1/D), by tokens of its own.

    State, all of it buffers: codes (K, D), counts N (K,), sums m (K, D), initialised (), bool. It stays float32 under
    ``.half()`` and ``.bfloat16()``: γ = 0.99 moves nothing in a number of 8 or 11 binary digits.
    With torch.distributed initialised, n and s are summed over all ranks, and tokens are drawn among those of all.
    No gradient: the codes are trained by `update` alone.
    Raises TypeError or ValueError that names the argument.

    >>> codebook = EMACodebook(codebook_size=1, dim=1, decay=0.5, epsilon=0.0)
    >>> codebook.place(torch.tensor([[4.0]]))
    >>> codebook.update(torch.tensor([[1.0], [1.0], [9.0]]), torch.tensor([0, 0, -1]))
    >>> codebook.codes, codebook.counts
    (tensor([[2.]]), tensor([1.5000]))
    """

    codes: Tensor
    counts: Tensor
    sums: Tensor
    initialised: Tensor

    def __init__(
        self,
        codebook_size: int,
        dim: int,
        decay: float = 0.99,
        epsilon: float = 1e-5,
        replace_below: float = 0.0,
        initialise_from_data: bool = False,
    ) -> None:
        super().__init__()
        require_size("codebook_size", codebook_size)
        require_size("dim", dim)
        require_weight("decay", decay)
        require_weight("epsilon", epsilon)
        require_weight("replace_below", replace_below)
        if not 0 < decay <= 1:
            raise ValueError(f"decay is {decay}: expected more than 0 and at most 1")
        self.decay = decay
        self.epsilon = epsilon
        self.replace_below = replace_below
        self.initialise_from_data = initialise_from_data
        self.fresh_count = max(1.0, replace_below / decay**2)
        self.register_buffer("codes", torch.empty(codebook_size, dim))
        self.register_buffer("counts", torch.empty(codebook_size))
        self.register_buffer("sums", torch.empty(codebook_size, dim))
        self.register_buffer("initialised", torch.tensor(not initialise_from_data))
        self.place(torch.randn(codebook_size, dim) * dim**-0.5)

    @torch.no_grad()
    def place(self, codes: Tensor, where: Tensor | None = None) -> None:
        """Set codes, and statistics that agree with them. codes: (K, D). where: (K,) bool, those to set; None: all."""
        where = torch.ones_like(self.counts, dtype=torch.bool) if where is None else where
        codes = codes.to(self.codes)
        self.codes.copy_(torch.where(where[:, None], codes, self.codes))
        self.counts.copy_(torch.where(where, self.fresh_count, self.counts))
        self.sums.copy_(torch.where(where[:, None], self.fresh_count * codes, self.sums))

    @torch.no_grad()
    def initialise(self, tokens: Tensor, valid: Tensor) -> None:
        """Take the codes from the data, unless that is done. tokens: (N, D). valid: (N,) bool, False: never a code."""
        if not self.initialise_from_data or self.initialised:
            return
        if sum_over_ranks(valid.sum()) > 0:
            self.place(draw_tokens(tokens, valid, len(self.codes)))
            self.initialised.fill_(True)

    @torch.no_grad()
    def update(self, tokens: Tensor, indices: Tensor) -> None:
        """Take one step. tokens: (N, D). indices: (N,) int64, the code each token chose; −1: the token is not there."""
        counts, sums = self._of_batch(tokens.to(self.sums.dtype), indices)
        any_token = counts.sum() > 0
        average_counts = self.decay * self.counts + (1 - self.decay) * counts
        average_sums = self.decay * self.sums + (1 - self.decay) * sums
        self.counts.copy_(torch.where(any_token, average_counts, self.counts))
        self.sums.copy_(torch.where(any_token, average_sums, self.sums))

        used = counts > 0
        moved = self.sums / self._smoothed_counts()[:, None]
        self.codes.copy_(torch.where(used[:, None], moved, self.codes))

        if self.replace_below > 0:
            dead = any_token & (self.counts < self.replace_below)
            self._replace(dead, tokens, indices >= 0)

    def _of_batch(self, tokens: Tensor, indices: Tensor) -> tuple[Tensor, Tensor]:
        """Return n, (K,), and s, (K, D), over the tokens of all ranks."""
        chosen = indices >= 0
        row = torch.where(chosen, indices, 0)
        counts = torch.zeros_like(self.counts).index_add_(0, row, chosen.to(self.counts.dtype))
        sums = torch.zeros_like(self.sums).index_add_(0, row, torch.where(chosen[:, None], tokens, 0.0))
        return sum_over_ranks(counts), sum_over_ranks(sums)

    def _smoothed_counts(self) -> Tensor:
        """Return Ñ, (K,)."""
        total = self.counts.sum()
        return (self.counts + self.epsilon) / (total + len(self.counts) * self.epsilon) * total

    def _replace(self, dead: Tensor, tokens: Tensor, valid: Tensor) -> None:
        """Put tokens in the place of dead codes, (K,) bool."""
        if dead.any():
            self.place(draw_tokens(tokens, valid, len(self.codes)), where=dead)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> EMACodebook:
        """Move, but narrow no statistic: what `nn.Module.to` and its kin call."""
        before = {name: getattr(self, name) for name in ("codes", "counts", "sums")}
        super()._apply(fn)  # type: ignore[no-untyped-call]
        for name, value in before.items():
            applied = getattr(self, name)
            if torch.finfo(applied.dtype).bits < torch.finfo(torch.float32).bits:
                setattr(self, name, value.to(applied.device))
        return self
