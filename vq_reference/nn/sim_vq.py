"""SimVQ as a torch module: codes that are a trained transform of a frozen codebook."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from vq_reference.nn import arguments
from vq_reference.nn.estimators import rotate, straight_through
from vq_reference.nn.nearest import nearest


class SimVQ(nn.Module):
    """Replace each token x by its nearest code q, a row of E = T(C): C is frozen, T is trained.

    Source: Zhu et al., arXiv 2411.02038. A drop-in for the class of that name in vector-quantize-pytorch: same
    arguments, return, attributes and state_dict.

    dim: D, width of the tokens and of E. codebook_size: K.
    codebook_transform: T, a module that maps (K, F) to (K, D); default nn.Linear(F, D, bias=False).
    init_fn: applied to C, drawn from N(0, 1/F), before it is frozen; must keep its shape (K, F).
    channel_first: tokens lie along axis 1, (B, D, ...), and not along the last, (..., D).
    rotation_trick: the gradient of the output passes by the rotation, else straight through.
    input_to_quantize_commit_loss_weight: β ≥ 0, the weight of the encoder half of the loss.
    commitment_weight: w ≥ 0, the weight of the whole loss.
    frozen_codebook_dim: F, default D.

    Raises TypeError or ValueError that names the argument: sizes below 1, β or w negative, infinite or NaN.

    >>> _ = torch.manual_seed(0)
    >>> quantizer = SimVQ(dim=4, codebook_size=16)
    >>> output, indices, loss = quantizer(torch.randn(2, 5, 4))
    >>> output.shape, indices.shape, loss.shape
    (torch.Size([2, 5, 4]), torch.Size([2, 5]), torch.Size([]))
    >>> torch.equal(output, quantizer.codebook[indices])
    True
    """

    def __init__(
        self,
        dim: int,
        codebook_size: int,
        codebook_transform: nn.Module | None = None,
        init_fn: Callable[[Tensor], Tensor] | None = None,
        channel_first: bool = False,
        rotation_trick: bool = True,
        input_to_quantize_commit_loss_weight: float = 0.25,
        commitment_weight: float = 1.0,
        frozen_codebook_dim: int | None = None,
    ) -> None:
        super().__init__()
        frozen_dim = dim if frozen_codebook_dim is None else frozen_codebook_dim
        for name, size in (("dim", dim), ("codebook_size", codebook_size), ("frozen_codebook_dim", frozen_dim)):
            arguments.require_size(name, size)
        arguments.require_weight("input_to_quantize_commit_loss_weight", input_to_quantize_commit_loss_weight)
        arguments.require_weight("commitment_weight", commitment_weight)

        frozen = torch.randn(codebook_size, frozen_dim) * frozen_dim**-0.5
        frozen = frozen if init_fn is None else init_fn(frozen)
        if frozen.shape != (codebook_size, frozen_dim):
            raise ValueError(
                f"init_fn returned shape {tuple(frozen.shape)}: expected {(codebook_size, frozen_dim)}, "
                "(codebook_size, frozen_codebook_dim)"
            )

        self.dim = dim
        self.codebook_size = codebook_size
        self.channel_first = channel_first
        self.rotation_trick = rotation_trick
        self.input_to_quantize_commit_loss_weight = input_to_quantize_commit_loss_weight
        self.commitment_weight = commitment_weight
        self.code_transform = (
            nn.Linear(frozen_dim, dim, bias=False) if codebook_transform is None else codebook_transform
        )
        self.frozen_codebook: Tensor
        self.register_buffer("frozen_codebook", frozen)

    @property
    def codebook(self) -> Tensor:
        """E = T(C), the effective codes, (K, D), with the graph of T.

        Raises ValueError when the transform returns another shape.
        """
        codes: Tensor = self.code_transform(self.frozen_codebook)
        if codes.shape != (self.codebook_size, self.dim):
            raise ValueError(
                f"codebook_transform returned shape {tuple(codes.shape)} for a frozen codebook of "
                f"{tuple(self.frozen_codebook.shape)}: expected {(self.codebook_size, self.dim)}, (codebook_size, dim)"
            )
        return codes

    def indices_to_codes(self, indices: Tensor) -> Tensor:
        """Return the codes of `indices` (any shape, an integer dtype), shape (..., D) or, channel first, (B, D, ...).

        They are what `forward` returned as its output, bit for bit. A negative index, which stands for a token that
        was not finite, gives a row of NaN. The gradient reaches the transform.
        Raises TypeError for indices that are not integers, IndexError for one that is codebook_size or more.
        """
        arguments.require_indices(indices)
        codes = _look_up(self.codebook, indices)
        return codes.movedim(-1, 1) if self.channel_first else codes

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return output, indices and loss.

        x: (..., D), or channel first (B, D, ...); rank 2 or more; float16, bfloat16, float32 or float64. An empty
        batch is good input: no tokens out, and a loss of 0 with a graph.
        output: shape of x, equal to codebook[indices] bit for bit (in the wider of both dtypes, where they differ).
        indices: int64, shape of x without its channel axis.
        loss: scalar, ℓ = w·(mean((sg(x) − q)²) + β·mean((x − sg(q))²)); float32 at least, since a mean of squares
        leaves the range of float16 where x and q are ordinary.

        Gradient contract: that of the output reaches x only (as λR'g, or as g), never the codebook. The codebook half
        of the loss trains the transform, the encoder half trains x.
        A token with a NaN or an infinity gets a row of NaN, index −1, and makes the loss NaN.
        Raises TypeError when x is no floating tensor, ValueError when its rank or width is wrong.
        """
        arguments.require_tokens(x, self.dim, self.channel_first)
        x = x.movedim(1, -1) if self.channel_first else x
        codebook = self.codebook
        dtype = torch.promote_types(x.dtype, codebook.dtype)
        # narrow dtypes take the loss, and sum the gradient of each code over its tokens, in float32
        wide = torch.promote_types(dtype, torch.float32)
        tokens, codes = x.reshape(-1, self.dim).to(wide), codebook.to(wide)

        indices = nearest(tokens, codes)
        q = _look_up(codes, indices)

        codebook_half = _mean_square(tokens.detach(), q)
        encoder_half = _mean_square(tokens, q.detach())
        loss = self.commitment_weight * (codebook_half + self.input_to_quantize_commit_loss_weight * encoder_half)

        estimator = rotate if self.rotation_trick else straight_through
        output = estimator(x.to(dtype), q.to(dtype).reshape(x.shape))
        return output.movedim(-1, 1) if self.channel_first else output, indices.reshape(x.shape[:-1]), loss


def _look_up(codes: Tensor, indices: Tensor) -> Tensor:
    """Return codes[indices], and a row of NaN for an index below 0: (K, D) and (...) give (..., D)."""
    unknown = codes.new_full((1, codes.shape[1]), torch.nan)
    return nn.functional.embedding(torch.where(indices < 0, len(codes), indices), torch.cat([codes, unknown]))


def _mean_square(a: Tensor, b: Tensor) -> Tensor:
    """Return mean((a − b)²) over all entries, and 0, not 0/0, when there are none."""
    return nn.functional.mse_loss(a, b, reduction="sum") / max(a.numel(), 1)
