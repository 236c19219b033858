"""Shape 4: codes that follow a moving average of their tokens; eval hands out the raw code, without a loss."""

import torch
from torch import nn

from vq_reference.testing import MovingAverage, torch_quantizer


class MovingAverageQuantizer(nn.Module):
    """The encoder half of the loss trains the encoder; the codes move by themselves, after they have been used."""

    def __init__(self, dim, codebook_size, commitment_weight=1.0, decay=0.99):
        super().__init__()
        self.register_buffer("embed", torch.randn(codebook_size, dim))
        self.register_buffer("sums", self.embed.clone())
        self.register_buffer("counts", torch.ones(codebook_size))
        self.commitment_weight, self.decay, self.moves = commitment_weight, decay, True

    def forward(self, x):
        """Return output, indices and loss."""
        flat = x.reshape(-1, x.shape[-1])
        indices = torch.cdist(flat, self.embed, compute_mode="donot_use_mm_for_euclid_dist").argmin(dim=-1)
        q = self.embed[indices].reshape(x.shape)
        shaped = indices.reshape(x.shape[:-1])
        if not self.training:
            return q, shaped, x.new_zeros(())
        loss = self.commitment_weight * (x - q).square().mean()
        if self.moves and torch.is_grad_enabled():  # not in the first of the two calls of activation checkpointing
            self.follow(flat.detach(), indices)
        return q + (x - x.detach()), shaped, loss

    @torch.no_grad()
    def follow(self, flat, indices):
        """Move each code towards the mean of its tokens."""
        one_hot = nn.functional.one_hot(indices, len(self.embed)).to(flat.dtype)
        self.counts.lerp_(one_hot.sum(dim=0), 1 - self.decay)
        self.sums.lerp_(one_hot.T @ flat, 1 - self.decay)
        # a new tensor: torch.compile may look up this call's codes again in the backward, and must not find later ones
        self.embed = self.sums / self.counts.clamp(min=1e-5)[:, None]


def adapter():
    """Return what the laws need to know of it."""
    return torch_quantizer(
        lambda wanted: MovingAverageQuantizer(wanted.dim, wanted.codebook_size, wanted.commitment_weight),
        "embed",
        loss_weights=lambda wanted: (0.0, wanted.commitment_weight),
        eval_estimator="none",
        eval_loss="zero",
        freeze=lambda module: setattr(module, "moves", False),
        average=MovingAverage(counts="counts", sums="sums", decay="decay"),
    )
