"""A vector quantizer as a torch module: projections, heads, a metric, a mask, and three ways for its codes to learn.

The right subject for the laws of state, masks, heads and low precision. What the oracle `vq_reference.vector_quantize`
says with formulas is said here with `detach`.
"""

from __future__ import annotations

from typing import Literal, cast, get_args

import torch
from torch import Tensor, nn

from vq_reference.nn import arguments
from vq_reference.nn.codebook import Codebook
from vq_reference.nn.codebooks import Codebooks
from vq_reference.nn.cosine import unit
from vq_reference.nn.ema import EMACodebook
from vq_reference.nn.estimators import directional, rotate, straight_through
from vq_reference.nn.masks import valid_tokens
from vq_reference.nn.projections import Projections

CodesLearnBy = Literal["ema", "gradient", "nothing"]
Metric = Literal["euclidean", "cosine"]
ESTIMATORS = {"straight_through": straight_through, "rotation": rotate, "directional": directional}


class VectorQuantize(nn.Module):
    """Replace each head of each token by its nearest code.

    h = x W_in' + b_in; the H parts of h, each of width D, are its heads t; q is the nearest code of each; output =
    [q of all heads] W_out' + b_out. With the cosine metric t and codes are divided by their lengths first, so that
    unit codes come out, and the gradient at x passes by x̂.

    dim: width of x and output. codebook_size: K. heads: H. codebook_dim: D, default dim / heads, and then there is no
    projection; there is one whenever H·D ≠ dim. separate_codebooks: each head has its own codes, else all share one.
    codes_learn_by: "ema" (decay, epsilon, replace_below and initialise_from_data as in `EMACodebook`, for it alone),
    "gradient" (of the codebook half of the loss) or "nothing".
    metric: "euclidean" or "cosine". estimator: "straight_through", "rotation" or "directional", between t and q; with
    the last one the output's gradient trains codes too, where they learn by "gradient".
    beta: β ≥ 0, weight of the encoder half of the loss. commitment_weight: w ≥ 0, weight of the whole.
    channel_first: channels along axis 1, (B, dim, ...), not along the last, (..., dim).
    Raises TypeError or ValueError that names the argument.

    >>> _ = torch.manual_seed(0)
    >>> quantizer = VectorQuantize(dim=6, codebook_size=16, heads=2)
    >>> output, indices, loss = quantizer(torch.randn(2, 5, 6), lengths=torch.tensor([5, 3]))
    >>> output.shape, indices.shape, indices[1, 3]
    (torch.Size([2, 5, 6]), torch.Size([2, 5, 2]), tensor([-1, -1]))
    >>> output, indices, loss = quantizer.eval()(torch.randn(2, 5, 6))  # in training, the codes have moved on
    >>> torch.equal(output, quantizer.decode(indices))
    True
    """

    def __init__(
        self,
        dim: int,
        codebook_size: int,
        *,
        heads: int = 1,
        codebook_dim: int | None = None,
        separate_codebooks: bool = False,
        codes_learn_by: CodesLearnBy = "ema",
        decay: float = 0.99,
        epsilon: float = 1e-5,
        replace_below: float = 0.0,
        initialise_from_data: bool = False,
        metric: Metric = "euclidean",
        estimator: Literal["straight_through", "rotation", "directional"] = "straight_through",
        beta: float = 0.25,
        commitment_weight: float = 1.0,
        channel_first: bool = False,
    ) -> None:
        super().__init__()
        for name, size in (("dim", dim), ("codebook_size", codebook_size), ("heads", heads)):
            arguments.require_size(name, size)
        if codebook_dim is None and dim % heads:
            raise ValueError(f"dim is {dim}, heads is {heads}: expected a multiple, or codebook_dim, to project to")
        width = dim // heads if codebook_dim is None else codebook_dim
        arguments.require_size("codebook_dim", width)
        arguments.require_one_of("codes_learn_by", codes_learn_by, get_args(CodesLearnBy))
        arguments.require_one_of("metric", metric, get_args(Metric))
        arguments.require_one_of("estimator", estimator, ESTIMATORS)
        arguments.require_weight("beta", beta)
        arguments.require_weight("commitment_weight", commitment_weight)

        self.dim, self.heads, self.codebook_dim = dim, heads, width
        self.metric, self.codes_learn_by, self.estimator = metric, codes_learn_by, estimator
        self.beta, self.commitment_weight = beta, commitment_weight
        self.channel_first = channel_first
        self.projections = Projections(dim, heads * width)

        def codebook() -> Codebook | EMACodebook:
            if codes_learn_by == "ema":
                return EMACodebook(codebook_size, width, decay, epsilon, replace_below, initialise_from_data)
            return Codebook(codebook_size, width, learnable=codes_learn_by == "gradient")

        self.codebooks = Codebooks((codebook() for _ in range(heads if separate_codebooks else 1)), heads)

    @property
    def codes(self) -> Tensor:
        """The effective codes, (G, K, D), G the number of codebooks: of unit length with the cosine metric."""
        codes = self.codebooks.raw().to(self.dtype)
        return unit(codes) if self.metric == "cosine" else codes

    @property
    def dtype(self) -> torch.dtype:
        """What distances, loss and statistics are computed in for narrower tokens: the codes' own, float32 at least."""
        return torch.promote_types(cast(Tensor, self.codebooks[0].codes).dtype, torch.float32)

    def forward(
        self, x: Tensor, mask: Tensor | None = None, lengths: Tensor | None = None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Return output, indices and loss.

        x: (..., dim), or channel first (B, dim, ...); rank 2 or more; float16, bfloat16, float32 or float64.
        mask: bool, the shape of x without its channel axis; False is padding. lengths: (B,) for three axes, in place of
        a mask. What padding holds, NaN included, changes nothing: no gradient, loss, statistic or code comes from it.
        output: shape and dtype of x, `decode(indices)` in that dtype; 0 for padding.
        indices: int64, shape of x without its channel axis, and H last if H > 1; −1 for padding.
        loss: scalar, ℓ = w·(mean((sg(t) − q)²) + β·mean((t − sg(q))²)) over the heads of valid tokens; the first half
        is there only if codes_learn_by is "gradient". 0, with a graph, if no token is valid. The same in eval.

        Distances, loss and statistics are float32 at least, under autocast too.
        State changes in training with gradients enabled, once a call, after the choice and the output have been made:
        k micro-batches whose gradients are accumulated are k steps. Activation checkpointing repeats a call: with
        use_reentrant=True that is one step, since the first call is without gradients; with use_reentrant=False two,
        and the gradients are those of codes that have moved. Leave the quantizer out of such a region.
        A token with a NaN or infinity: NaN in its output and in the loss, index −1 in heads that see it, no part in
        the state. Raises TypeError or ValueError that names the argument.
        """
        arguments.require_tokens(x, self.dim, self.channel_first)
        x = x.movedim(1, -1) if self.channel_first else x
        valid = valid_tokens(x, mask, lengths)

        tokens = self._heads(x, valid)
        updates = self.codes_learn_by == "ema" and self.training and torch.is_grad_enabled()
        if updates:
            usable = valid[..., None] & tokens.isfinite().all(dim=-1)
            self.codebooks.initialise(tokens.detach(), usable)
        codes = self.codes.to(tokens.dtype)
        indices = torch.where(valid[..., None], self.codebooks.choose(tokens.detach(), codes), -1)
        q = self.codebooks.look_up(codes, indices)
        if updates:
            self.codebooks.update(tokens.detach(), indices)

        loss = self._loss(tokens, q, valid)
        chosen = ESTIMATORS[self.estimator](tokens, q)
        output = self.projections.leave(chosen.flatten(-2), valid).to(x.dtype)
        indices = indices if self.heads > 1 else indices.squeeze(-1)
        return output.movedim(-1, 1) if self.channel_first else output, indices, loss

    def decode(self, indices: Tensor) -> Tensor:
        """Return the output that `indices` stand for, (..., dim) or channel first, float32 at least.

        indices: an integer dtype, shaped as `forward` returned them. A token without any code (all heads −1) gives 0.
        The gradient reaches the codes and the projection. Raises TypeError for indices that are not integers,
        ValueError if the last axis is not H, IndexError for one that is codebook_size or more.
        """
        arguments.require_indices(indices)
        indices = indices if self.heads > 1 else indices.unsqueeze(-1)
        if indices.shape[-1:] != (self.heads,):
            raise ValueError(f"indices has shape {tuple(indices.shape)}: expected (..., {self.heads}), one for a head")
        q = self.codebooks.look_up(self.codes, indices)
        output = self.projections.leave(q.flatten(-2), (indices >= 0).any(dim=-1))
        return output.movedim(-1, 1) if self.channel_first else output

    def _heads(self, x: Tensor, valid: Tensor) -> Tensor:
        """Return t, the heads of each token, (..., H, D), float32 at least; 0 for padding."""
        hidden = self.projections.enter(x, valid)
        wide = hidden.to(torch.promote_types(hidden.dtype, self.dtype))
        heads = wide.reshape(*valid.shape, self.heads, self.codebook_dim)
        return unit(heads) if self.metric == "cosine" else heads

    def _loss(self, tokens: Tensor, q: Tensor, valid: Tensor) -> Tensor:
        """Return ℓ. Padding adds nothing to the sums: its tokens and its codes are 0."""
        entries = (valid.sum() * self.heads * self.codebook_dim).clamp(min=1)
        encoder_half = (tokens - q.detach()).square().sum() / entries
        codebook_half = (tokens.detach() - q).square().sum() / entries
        if self.codes_learn_by != "gradient":
            return self.commitment_weight * self.beta * encoder_half
        return self.commitment_weight * (codebook_half + self.beta * encoder_half)
