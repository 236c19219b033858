"""A residual stack as a torch module: each layer quantizes what those before it left."""

from __future__ import annotations

import functools
from collections.abc import Iterable
from typing import Literal, cast

import torch
from torch import Tensor, nn

from vq_reference.nn import arguments
from vq_reference.nn.distributed import from_first_rank
from vq_reference.nn.masks import valid_tokens
from vq_reference.nn.projections import Projections
from vq_reference.nn.vector_quantize import ESTIMATORS, VectorQuantize


class ResidualQuantizer(nn.Module):
    """Replace each token by the sum of one code from each layer: r_0 = h, r_{i+1} = r_i − sg(q_i), q = Σ q_i.

    Source: Zeghidour et al., SoundStream, arXiv 2107.03312, §III-C, and its layer dropout.
    Flow: q_i is a constant in the residual, so every layer's loss reaches x with ∂r_i/∂x = I (times W_in). The output
    has one estimator, around the whole stack, between h and q: the gain of the stack is that of one quantizer, J = I
    for straight-through. The layers' own estimators are not in use.

    layers: `VectorQuantize`, each with the Euclidean metric, no projection, channels last, all of one width D.
    dim: width of x and output, default D; another one is projected, h = x W_in' + b_in and back.
    estimator: "straight_through" or "rotation". channel_first: as in `VectorQuantize`.
    layer_dropout: in training, each call keeps only the first 1 … all layers, drawn evenly; the same on every rank.
    Raises ValueError for layers that do not fit.

    >>> _ = torch.manual_seed(0)
    >>> stack = ResidualQuantizer([VectorQuantize(4, 16) for _ in range(3)]).eval()
    >>> output, indices, losses = stack(torch.randn(2, 5, 4))
    >>> output.shape, indices.shape, losses.shape
    (torch.Size([2, 5, 4]), torch.Size([2, 5, 3]), torch.Size([3]))
    >>> torch.equal(output, stack.decode(indices))
    True
    """

    def __init__(
        self,
        layers: Iterable[VectorQuantize],
        *,
        dim: int | None = None,
        estimator: Literal["straight_through", "rotation"] = "straight_through",
        layer_dropout: bool = False,
        channel_first: bool = False,
    ) -> None:
        super().__init__()
        members = list(layers)
        if not members:
            raise ValueError("layers is empty: expected at least one VectorQuantize")
        width, heads = members[0].dim, members[0].heads
        for i, layer in enumerate(members):
            if layer.projections.needed or layer.channel_first or layer.metric != "euclidean":
                raise ValueError(f"layers[{i}] projects, is channel first or cosine: expected a plain Euclidean layer")
            if (layer.dim, layer.heads) != (width, heads):
                raise ValueError(
                    f"layers[{i}] has dim {layer.dim}, {layer.heads} heads: expected {width} and {heads}, as layers[0]"
                )
        arguments.require_one_of("estimator", estimator, ("straight_through", "rotation"))
        self.dim = width if dim is None else dim
        arguments.require_size("dim", self.dim)
        self.estimator = estimator
        self.layer_dropout = layer_dropout
        self.channel_first = channel_first
        self.heads = heads
        self.layers = nn.ModuleList(members)
        self.projections = Projections(self.dim, width)

    @property
    def dtype(self) -> torch.dtype:
        """What residuals and their sum are computed in for narrower tokens: the widest of the layers'."""
        return functools.reduce(torch.promote_types, (cast(VectorQuantize, layer).dtype for layer in self.layers))

    def forward(
        self, x: Tensor, mask: Tensor | None = None, lengths: Tensor | None = None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Return output, indices and the losses of the layers.

        x, mask, lengths, output: as for `VectorQuantize`. Residuals and their sum are float32 at least.
        indices: int64, shape of x without its channel axis, then L layers, then H heads if H > 1: (..., L) or
        (..., L, H); −1 for padding, and in layers that were dropped.
        losses: (L,), not summed; 0 for layers that were dropped.
        """
        arguments.require_tokens(x, self.dim, self.channel_first)
        x = x.movedim(1, -1) if self.channel_first else x
        valid = valid_tokens(x, mask, lengths)

        hidden = self.projections.enter(x, valid)
        tokens = hidden.to(torch.promote_types(hidden.dtype, self.dtype))
        residual, quantized = tokens, torch.zeros_like(tokens)
        kept = self._draw_kept_layers(x.device)
        indices, losses = [], []
        for layer in self.layers[:kept]:
            output, chosen, loss = layer(residual, mask=valid)
            q = output.detach()
            residual = residual - q
            quantized = quantized + q
            indices.append(chosen)
            losses.append(loss)
        for _ in range(kept, len(self.layers)):
            indices.append(torch.full_like(indices[0], -1))
            losses.append(torch.zeros_like(losses[0]))

        output = self.projections.leave(ESTIMATORS[self.estimator](tokens, quantized), valid).to(x.dtype)
        stacked = torch.stack(indices, dim=valid.ndim)
        return output.movedim(-1, 1) if self.channel_first else output, stacked, torch.stack(losses)

    def decode(self, indices: Tensor) -> Tensor:
        """Return the output that `indices` stand for, (..., dim) or channel first, float32 at least.

        indices: an integer dtype, (..., L) or (..., L, H), as `forward` returned them; a layer with −1 adds nothing, a
        token without any code gives 0. Raises TypeError for indices that are not integers, ValueError unless there are
        L layers: pad those you do not have with −1.
        """
        arguments.require_indices(indices)
        axis = indices.ndim - (1 if self.heads == 1 else 2)
        if axis < 0 or indices.shape[axis] != len(self.layers):
            raise ValueError(
                f"indices has shape {tuple(indices.shape)}: expected {len(self.layers)} layers on axis {axis}, "
                "those you do not have padded with -1"
            )
        quantized = torch.zeros((), dtype=self.dtype, device=indices.device)
        for layer, chosen in zip(self.layers, indices.unbind(axis), strict=True):
            quantized = quantized + cast(VectorQuantize, layer).decode(chosen)
        valid = (indices >= 0).flatten(axis).any(dim=-1)
        output = self.projections.leave(quantized, valid)
        return output.movedim(-1, 1) if self.channel_first else output

    def _draw_kept_layers(self, device: torch.device) -> int:
        """Return how many layers, from the first on, are in use. Ranks must agree: EMA codebooks sum over them."""
        count = len(self.layers)
        if not (self.training and self.layer_dropout):
            return count
        return int(from_first_rank(torch.randint(1, count + 1, (), device=device)))
